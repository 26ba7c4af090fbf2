"""What a flow asks of the connection that it is one half of. Counterparts: `flow.py` and `relay.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from tproxy.io.loop import Loop
from tproxy.relay.pipes import Pipes

if TYPE_CHECKING:
    from tproxy.relay.flow import Flow


class Owner(Protocol):
    """The connection that a flow is one half of."""

    loop: Loop
    pipes: Pipes

    def first_byte(self, flow: Flow) -> None:
        """The flow's first bytes went through."""

    def ended(self, flow: Flow) -> None:
        """The source is at its end, everything was delivered, and the sink may be told so."""

    def broken(self, flow: Flow) -> None:
        """The source is no longer connected (now and then said more than once)."""

    def drained(self, flow: Flow) -> None:
        """The source is broken, and what could be read of it was delivered."""
