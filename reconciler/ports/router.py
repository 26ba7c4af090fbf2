"""The router, which sends connections to a service's endpoints or to its hold address: Envoy, by xDS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class RouteState:
    """Acknowledgement of one service's present route."""

    service: str
    acked_at: float | None
    """When the last connected Envoy acknowledged it (seconds since the epoch); None until then."""
    waiting_for: str
    """The Envoys that have not acknowledged it, for people; empty if there are none."""


Report = Callable[[RouteState], None]


class Router(Protocol):
    """Brings routes about. Reports every change of `RouteState`, also when an Envoy comes or goes."""

    def route(self, service: str, endpoints: tuple[str, ...], held: bool) -> None:
        """Send connections for `service` to these `ip:port` from now on. The same value again costs nothing.

        `held` says that it is the hold address: what is ignored is not sent there.
        """

    def envoys(self) -> frozenset[str]:
        """Node ids of the Envoys that must be in a sample for it to be complete."""

    def away(self) -> frozenset[str]:
        """Those of them that are not connected."""
