"""Tests of the states that the routers and holders of all replicas return to the engine."""

from __future__ import annotations

from reconciler.core.record import Record
from reconciler.core.spec import Spec
from reconciler.ports.clock import Clock
from reconciler.ports.holders import HoldOrder, HoldStatus
from reconciler.ports.replicas import RecordProgress
from reconciler.ports.router import RouteState
from reconciler.replication.fleet import ReplicaContext
from reconciler.replication.messages import Fleet
from reconciler.replication.replication import ReplicaEngine, Replication
from tests.fakes.member_list import MemberList

ME, NOW = "10.0.0.1", 1_000_000.0
HOLD = "127.64.0.1:1"
ORDER = HoldOrder(Spec(name="web"), HOLD, (), None)


class Engine(ReplicaEngine):
    """An engine that notes the reports that it receives, and does nothing else."""

    def __init__(self) -> None:
        self.reports: list[RouteState | HoldStatus] = []

    def routed(self, state: RouteState, /) -> None:
        self.reports.append(state)

    def held(self, held: HoldStatus, /) -> None:
        self.reports.append(held)

    def record_progress(self, name: str) -> RecordProgress | None:
        return None

    def adopt(self, name: str, record: Record | None, fence: bool = False, cause: str = "", /) -> None:
        pass

    def detach(self) -> None:
        pass

    def lead(self, since: float, /) -> None:
        pass

    def follow(self) -> None:
        pass


class Own:
    """This replica's own router and holders."""

    status: HoldStatus | None = None
    """The status that orders return."""

    def route(self, service: str, endpoints: tuple[str, ...], held: bool) -> RouteState:
        return RouteState(service, None, "Envoy one")

    def envoys(self) -> frozenset[str]:
        return frozenset({"one"})

    def away(self) -> frozenset[str]:
        return frozenset()

    def order(self, service: str, order: HoldOrder | None) -> HoldStatus | None:
        return self.status


class Cluster:
    """A replica that leads alone, with the Envoys and holders of `fleet`."""

    def __init__(self, fleet: Fleet) -> None:
        self.engine = Engine()
        clock = Clock(lambda: NOW, lambda: NOW)
        self.replication = Replication(ReplicaContext(ME, MemberList([ME]), lambda: True, clock, settle_seconds=0))
        self.own = Own()
        self.replication.attach(self.engine, self.own, self.own)
        self.replication.lead(NOW)
        self.replication.members.came_or_went(fleet.envoys, fleet.holders)
        self.engine.reports.clear()


def test_route_returns_its_state_and_reports_nothing() -> None:
    cluster = Cluster(Fleet({"one": ""}, ("one",)))
    router = cluster.replication.router
    assert router.route("web", (HOLD,), held=True) == RouteState("web", None, "Envoy one")
    assert cluster.engine.reports == []
    acked = RouteState("web", NOW, "")
    router.routed(acked)
    assert cluster.engine.reports == [acked]
    router.routed(acked)
    assert cluster.engine.reports == [acked], "it was reported already"
    assert router.route("web", (HOLD,), held=True).acked_at is None


def test_order_returns_its_status_and_reports_nothing() -> None:
    cluster = Cluster(Fleet({"one": ""}, ("one",)))
    holders = cluster.replication.holders
    assert holders.order("web", ORDER) == HoldStatus("web", None, None)
    assert cluster.engine.reports == []
    held = HoldStatus("web", 1, 0, NOW)
    holders.held(held)
    assert cluster.engine.reports == [held]


def test_order_not_yet_acknowledged_is_not_in_force() -> None:
    cluster = Cluster(Fleet({"one": ""}, ("one",)))
    holders = cluster.replication.holders
    holders.order("web", ORDER)
    holders.held(HoldStatus("web", 0, 0, NOW))
    cluster.own.status = HoldStatus("web", 0, 0, None)
    assert holders.order("web", ORDER) == cluster.own.status


def test_order_without_holders_is_in_force_at_once() -> None:
    cluster = Cluster(Fleet())
    cluster.replication.members.leads = False
    assert cluster.replication.holders.order("web", ORDER) == HoldStatus("web", 0, 0, NOW)
    assert cluster.engine.reports == []


def test_order_removal_returns_nothing() -> None:
    cluster = Cluster(Fleet({"one": ""}, ("one",)))
    holders = cluster.replication.holders
    holders.order("web", ORDER)
    assert holders.order("web", None) is None
    holders.held(HoldStatus("web", 1, 0, NOW))
    assert cluster.engine.reports == [], "the service is gone"
