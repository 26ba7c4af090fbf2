"""Tests of the cost of many services: shared objects, and no calls without changes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import count

from reconciler.core.events import SleepCommanded
from reconciler.core.lifecycle import NONE, NOT_TERMINATING, Block
from reconciler.core.record import Record, State
from reconciler.core.spec import Spec
from reconciler.core.traffic import EnvoyReading, Pace, Sample
from reconciler.engine.engine import Adapters, Engine
from reconciler.engine.hold_addresses import AnyIp
from reconciler.engine.service import ServiceIndex
from reconciler.plan import Deadline, Scale
from reconciler.ports.backend import WorkloadStatus
from reconciler.ports.clock import Clock
from reconciler.ports.holders import HoldOrder, HoldStatus
from tests.fakes.listener import NoListener

NOW = 1_000_000.0
PODS = ("127.0.0.1:80",)


class Ports:
    """The adapters of an engine; `asked` has the scales that its backend received."""

    def __init__(self) -> None:
        self.asked: list[Scale] = []
        self.indexes = count(1)

    def converge(self, service: str, scale: Scale) -> None:
        self.asked.append(scale)

    async def close(self) -> None: ...

    def route(self, service: str, endpoints: tuple[str, ...], held: bool) -> None: ...

    def envoys(self) -> frozenset[str]:
        return frozenset({"one"})

    def away(self) -> frozenset[str]:
        return frozenset()

    def order(self, service: str, order: HoldOrder | None) -> None: ...

    def arm(self, service: str, deadline: Deadline | None) -> None: ...

    def records(self) -> dict[str, Record]:
        return {}

    def save(self, service: str, record: Record) -> None: ...

    def forget(self, service: str) -> None: ...

    def paused(self) -> frozenset[str]:
        return frozenset()

    def pause(self, service: str, paused: bool) -> None: ...

    def next_index(self) -> int:
        return next(self.indexes)


class Place:
    """A running service `web` and an Envoy without traffic."""

    def __init__(self) -> None:
        self.ports, self.spec, self.uptime = Ports(), Spec(name="web"), 100.0
        ports = self.ports
        self.engine = Engine(Clock(lambda: NOW), Pace(60.0), AnyIp(1), NoListener())
        self.engine.start(Adapters(ports, ports, ports, ports.arm, ports, lambda at: None))
        self.engine.configure([self.spec])
        self.engine.ran(WorkloadStatus("web", 1, PODS))
        self.engine.held(HoldStatus("web", 0, 0))

    @property
    def asked(self) -> int:
        return len(self.ports.asked)

    def sampled(self) -> None:
        self.uptime += 1.0
        self.engine.sampled(Sample(NOW - 200.0 + self.uptime, {"one": EnvoyReading(self.uptime, {})}))


def test_engine_without_news_does_not_converge() -> None:
    place = Place()
    place.sampled()
    before = place.asked
    place.sampled()
    place.engine.held(HoldStatus("web", 0, 0))
    place.engine.ran(WorkloadStatus("web", 1, tuple(PODS)))
    assert place.asked == before


def test_engine_with_changed_plan_converges() -> None:
    place = Place()
    service = place.engine.services["web"]
    news: list[Callable[[], object]] = [
        lambda: place.engine.ran(WorkloadStatus("web", 2, (*PODS, "127.0.0.1:81"))),
        lambda: place.engine.configure([replace(place.spec, idle_after=1.0)]),
        lambda: place.engine.pause("web", True),
        lambda: place.engine.command("web", SleepCommanded("now")),
    ]
    for report in news:
        before = place.asked
        report()
        assert place.asked > before
    assert service.record is not None and service.record.state is State.Draining


def test_service_shares_its_configured_spec() -> None:
    place = Place()
    assert place.engine.services["web"].spec is place.spec


def test_service_index_without_unknown_frees_memory() -> None:
    roll = ServiceIndex()
    names = [f"service-{number}" for number in range(1000)]
    for name in names:
        roll.note(name, None)
    for name in names:
        roll.note(name, Record(State.ScaledToZero, NOW, "", 1, "127.64.0.1:1"))
    assert sys.getsizeof(roll.unknown) == sys.getsizeof(set())


def test_terminating_endpoints_share_the_empty_set() -> None:
    asleep = NOT_TERMINATING.blocked(Block.Every, ())
    assert asleep.endpoints is NONE
    assert asleep.observed(0, ()).endpoints is NONE
    assert asleep.observed(0, PODS).observed(0, ()).endpoints is NONE


def test_terminating_endpoints_without_change_are_not_copied() -> None:
    asleep = NOT_TERMINATING.blocked(Block.Every, PODS).observed(0, PODS)
    assert asleep.observed(0, PODS) is asleep
    assert NOT_TERMINATING.observed(1, PODS) is NOT_TERMINATING
