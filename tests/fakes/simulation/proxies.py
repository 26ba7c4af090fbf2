"""Simulated Envoys and holders, and the streams of a replica to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from reconciler.core.judge import SETTLE_SECONDS
from reconciler.ports.holders import HoldOrder, HoldStatus
from reconciler.ports.router import RouteState
from tests.fakes.simulation.clients import NAME


@dataclass
class Envoy:
    """An Envoy with its latest route. Workers may use the route before until SETTLE_SECONDS after `applied_at`."""

    holder: str
    """The holder that accepts its connections to the hold address."""
    started: float
    up: bool = True
    at: str | None = None
    """The replica that it is connected to."""
    lost_at: float = 0.0
    """Time at which its last stream ended."""
    route: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    applied_at: float | None = None
    holds_since: float = 0.0
    """Time since which no route led to pods."""
    requests: int = 0
    bytes: int = 0

    @property
    def holds(self) -> bool:
        """True if new connections go to the hold address, or nowhere."""
        return not self.route or self.route[0].startswith("127.")

    def route_for(self, lagging_worker: bool, now: float) -> tuple[str, ...]:
        """Return the route of a new connection."""
        lags = self.before and self.applied_at is not None and now < self.applied_at + SETTLE_SECONDS
        return self.before if lagging_worker and lags else self.route

    def apply(self, route: tuple[str, ...], now: float) -> None:
        if not self.holds:
            self.holds_since = now
        self.before, self.route, self.applied_at = self.route if route else (), route, now


@dataclass
class Holder:
    """A holder, which uses `order` until the test lets it apply another."""

    up: bool = True
    at: str | None = None
    lost_at: float = 0.0
    order: HoldOrder | None = None
    applied_at: float | None = None
    is_closed: bool = False
    """True if the service is removed: connections to its hold address are refused."""

    def apply(self, order: HoldOrder | None, now: float) -> None:
        self.order, self.applied_at, self.is_closed = order, now, order is None


@dataclass
class Streams:
    """The streams of one replica, as its router and holders. Times of acknowledgements are those of its own clock.

    Actual times have names with `sent_at`.
    """

    actual: Callable[[], float]
    route_sent: tuple[str, ...] | None = None
    """The latest route: None before the first; empty after the removal of the service."""
    route_sent_at: float = 0.0
    acks: dict[str, float | None] = field(default_factory=dict)
    """Acknowledgement of the route by each connected Envoy."""
    order_sent: HoldOrder | None = None
    has_order: bool = False
    order_sent_at: float = 0.0
    obeyed: dict[str, float | None] = field(default_factory=dict)
    """Acknowledgement of the order by each connected holder."""
    counts: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Held and relayed connections that each holder has reported."""

    def route(self, service: str, endpoints: tuple[str, ...], held: bool) -> RouteState:
        self.route_sent, self.route_sent_at, self.acks = endpoints, self.actual(), dict.fromkeys(self.acks)
        return self.routed()

    def envoys(self) -> frozenset[str]:
        return frozenset(self.acks)

    def away(self) -> frozenset[str]:
        return frozenset()

    def order(self, service: str, order: HoldOrder | None) -> HoldStatus:
        self.order_sent, self.has_order, self.order_sent_at = order, True, self.actual()
        self.obeyed = dict.fromkeys(self.obeyed)
        return self.held()

    def routed(self) -> RouteState:
        """Return the acknowledgement of the last connected Envoy, or an Envoy that lacks one."""
        late = [name for name, at in sorted(self.acks.items()) if at is None]
        times = [at for at in self.acks.values() if at is not None]
        if late or not times:
            return RouteState(NAME, None, late[0] if late else "no Envoy is connected")
        return RouteState(NAME, max(times), "")

    def held(self) -> HoldStatus:
        """Return the counts of all connected holders."""
        if not self.obeyed:
            return HoldStatus(NAME, None, None)
        times = [at for at in self.obeyed.values() if at is not None]
        acked = max(times) if len(times) == len(self.obeyed) else None
        counts = [self.counts.get(name, (0, 0)) for name in self.obeyed]
        return HoldStatus(NAME, sum(held for held, _ in counts), sum(relayed for _, relayed in counts), acked)
