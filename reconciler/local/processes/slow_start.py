"""Diagnosis of a program that was started and is not ready: where it listens, and what its readiness probe answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reconciler.core.address import join_address
from reconciler.local.processes.probes import LastProbe
from reconciler.local.processes.program import Program
from reconciler.local.sockets import ListeningSocket

LOOK_SECONDS = 1.0
"""Pause between two looks at a program that starts."""
LATER_LOOK_SECONDS = 10.0
OFTEN_SECONDS = 60.0
"""A program that takes longer is looked at less often."""
MOST_OTHERS = 3
"""Sockets in one message that are not TCP."""
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Unreadiness:
    """The reason why a program is not ready."""

    message: str
    lasts: bool
    """True if waiting does not change it, as far as one can see."""


def unreadiness(
    port: int,
    program: Program,
    is_accepted: bool,
    probe: LastProbe,
    sockets: Sequence[ListeningSocket],
    others: Sequence[str] = (),
) -> Unreadiness:
    """Return the reason; `sockets` are those on which its processes listen, and `others` those that are not TCP."""
    if is_accepted:
        return Unreadiness(probe.message or "its readiness probe has not answered yet", probe.lasts)
    target = join_address(LOOPBACK, port)
    if not sockets:
        instead = f"; it listens on {', '.join(others[:MOST_OTHERS])}" if others else ""
        return Unreadiness(f"nothing listens on {target} yet{instead}", lasts=False)
    at = ", ".join(join_address(one.host, one.port) for one in sockets)
    if any(one.port == port for one in sockets):
        return Unreadiness(f"it listens on {at} and not on {target}; let it listen on {LOOPBACK}", lasts=True)
    remedy = 'pass it "{port}"' if program.port is None else f"set port: {sockets[0].port}"
    return Unreadiness(f"it listens on {at} and not on port {port}; {remedy}", lasts=True)
