"""Tests of the effects of a step: their order, and the states that adapters return from them."""

from __future__ import annotations

import pytest

from reconciler.core.events import SleepCommanded
from reconciler.core.record import Record, State, Transition
from reconciler.core.spec import Spec
from reconciler.core.traffic import EnvoyReading, Pace, Sample
from reconciler.engine.engine import Adapters, Engine
from reconciler.engine.hold_addresses import AnyIp
from reconciler.engine.service import Wake
from reconciler.plan import Deadline, Scale, Zero
from reconciler.ports.backend import WorkloadStatus
from reconciler.ports.clock import Clock
from reconciler.ports.holders import HoldOrder, HoldStatus
from reconciler.ports.replicas import SingleReplica
from reconciler.ports.router import RouteState

PODS: tuple[str, ...] = ("127.0.0.1:80",)


class Ports(SingleReplica):
    """Adapters and a listener that note their calls, and that apply each one immediately."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.calls: list[str] = []
        self.scale: Scale = None
        self.fails = False
        """True if orders fail."""
        self.states: list[State | None] = []
        """The state of the record at each call."""
        self.engine = Engine(Clock(lambda: self.now), Pace(60.0), AnyIp(1), self)
        self.engine.start(Adapters(self, self, self, self.arm, self, lambda at: None))
        self.engine.configure([Spec(name="web")])

    def note(self, call: str) -> None:
        record = self.engine.services["web"].record
        self.calls.append(call)
        self.states.append(record.state if record else None)

    def converge(self, service: str, scale: Scale) -> WorkloadStatus | None:
        self.note(f"scale {type(scale).__name__}")
        before, self.scale = self.scale, scale
        return WorkloadStatus("web", 1, ()) if isinstance(scale, Zero) and scale != before else None

    async def close(self) -> None: ...

    def route(self, service: str, endpoints: tuple[str, ...], held: bool) -> RouteState:
        self.note("route")
        return RouteState("web", self.now, "")

    def envoys(self) -> frozenset[str]:
        return frozenset({"one"})

    def away(self) -> frozenset[str]:
        return frozenset()

    def order(self, service: str, order: HoldOrder | None) -> HoldStatus:
        if self.fails:
            raise OSError("no memory")
        self.note("order")
        return HoldStatus("web", 0, 0, self.now)

    def arm(self, service: str, deadline: Deadline | None) -> None:
        self.note("deadline")

    def records(self) -> dict[str, Record]:
        return {}

    def save(self, service: str, record: Record) -> None:
        self.note("save")

    def forget(self, service: str) -> None: ...

    def paused(self) -> frozenset[str]:
        return frozenset()

    def pause(self, service: str, paused: bool) -> None: ...

    def next_index(self) -> int:
        return 0

    def saw(self, transition: Transition) -> None:
        self.note(f"report {transition.target}")

    def woke(self, service: str, wake: Wake) -> None: ...

    def sample(self) -> None:
        """Receive a sample without traffic, one second later."""
        self.now += 1.0
        self.engine.sampled(Sample(self.now, {"one": EnvoyReading(self.now - 999_000.0, {})}))

    def drain(self) -> None:
        """Run the service, and put it to sleep; only a later sample is missing for zero."""
        self.engine.ran(WorkloadStatus("web", 1, PODS))
        self.sample()
        self.sample()
        self.engine.command("web", SleepCommanded("now"))


def test_wake_scales_first_and_saves_after_it() -> None:
    ports = Ports()
    ports.engine.ran(WorkloadStatus("web", 0))
    ports.calls.clear()
    ports.engine.held(HoldStatus("web", 1, 0, ports.now))
    assert ports.calls == ["scale AtLeast", "deadline", "save", "report Waking"]


def test_release_is_ordered_before_the_record_is_saved() -> None:
    ports = Ports()
    ports.engine.ran(WorkloadStatus("web", 0))
    ports.engine.held(HoldStatus("web", 1, 0, ports.now))
    ports.calls.clear()
    ports.engine.ran(WorkloadStatus("web", 1, PODS))
    assert ports.calls[:5] == ["order", "route", "deadline", "scale NoneType", "save"]
    assert ports.calls[5] == "report Active"


def test_sleep_saves_first_and_scales_last() -> None:
    ports = Ports()
    ports.drain()
    ports.calls.clear()
    ports.sample()
    assert ports.calls[:4] == ["save", "deadline", "scale Zero", "report ScaledToZero"]


def test_returned_states_are_applied_after_the_step() -> None:
    ports = Ports()
    ports.drain()
    service = ports.engine.services["web"]
    assert service.record and service.record.state is State.Draining
    assert service.seen.route_acked_at == ports.now, "the acknowledgements were returned"
    assert service.seen.endpoints == PODS
    ports.states.clear()
    ports.sample()
    assert service.seen.endpoints == (), "the backend returned that they end"
    assert set(ports.states) == {State.ScaledToZero}


def test_effects_after_a_failed_one_are_due_again() -> None:
    ports = Ports()
    ports.engine.ran(WorkloadStatus("web", 0))
    ports.engine.held(HoldStatus("web", 1, 0, ports.now))
    ports.calls.clear()
    ports.fails = True
    with pytest.raises(OSError, match="no memory"):
        ports.engine.ran(WorkloadStatus("web", 1, PODS))
    assert "route" not in ports.calls
    ports.fails = False
    ports.engine.ran(WorkloadStatus("web", 1, PODS))
    assert "route" in ports.calls, "what followed the failed effect is still due"
