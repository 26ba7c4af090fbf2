"""Port for the router of connections to a service's endpoints or its hold address: Envoy, by xDS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class RouteState:
    """Acknowledgement of one service's present route."""

    service: str
    acked_at: float | None
    """Time at which the last connected Envoy acknowledged it (seconds since the epoch); None until then."""
    waiting_for: str
    """The Envoys that have not acknowledged it, for people; empty if there are none."""


Report = Callable[[RouteState], None]


class Router(Protocol):
    """Router of all services. Reports every change of `RouteState`, also when an Envoy connects or disconnects.

    It never reports from within `route`.
    """

    def route(self, service: str, endpoints: tuple[str, ...], held: bool) -> RouteState | None:
        """Route connections for `service` to these `ip:port`; return the state of the route.

        The same value again costs nothing.

        `held` is true for the hold address, to which requests of ignore rules are not routed.
        """

    def envoys(self) -> frozenset[str]:
        """Return the node ids of the Envoys that a complete sample must contain."""

    def away(self) -> frozenset[str]:
        """Return the node ids in `envoys()` that are not connected."""
