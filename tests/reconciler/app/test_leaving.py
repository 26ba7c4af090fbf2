"""When a service that was taken out of the file may be stopped, by what samples say."""

from __future__ import annotations

from reconciler.app.leaving import CLOSING_SECONDS, Leaving
from reconciler.core.judge import Observed
from reconciler.core.spec import Protocol, Spec
from reconciler.core.traffic import Counters, EnvoyReading, Sample
from reconciler.engine.service import Service

RUNS = Observed(replicas=1, endpoints=("127.0.0.1:9",))
SPEC = Spec(name="web", drain_timeout=30)


class Stage:
    """One service that leaves at second 0."""

    def __init__(self, spec: Spec = SPEC, seen: Observed = RUNS) -> None:
        self.now, self.set_by = 0.0, 0.0
        self.envoys = frozenset({"envoy"})
        self.leaving = Leaving(lambda: self.now + self.set_by, lambda: self.now, lambda: self.envoys)
        self.before = {"web": Service(spec, seen=seen)}
        self.leaving.configure(self.before, set())

    def is_over(self, at: float, counters: Counters | None) -> bool:
        """After a sample of that second; None: Envoy is not in it."""
        self.now = at
        readings = {} if counters is None else {"envoy": EnvoyReading(at, {"web": counters})}
        return self.leaving.sampled(Sample(at, readings))


def test_one_that_does_not_run_is_forgotten_at_once() -> None:
    assert not Stage(seen=Observed(replicas=0)).leaving.names


def test_one_that_is_waited_for_is_left_the_time_to_say_no() -> None:
    assert Stage(seen=Observed(replicas=0, held=1)).leaving.names == {"web"}


def test_leaving_clock_set_forward_does_not_shorten_the_drain() -> None:
    stage = Stage()
    stage.set_by = 3600.0
    assert not stage.is_over(29, Counters(requests=1, active_requests=1))
    assert stage.is_over(30, Counters(requests=1, active_requests=1))


def test_two_quiet_samples_after_the_way_was_closed_end_it() -> None:
    stage = Stage()
    assert not stage.is_over(CLOSING_SECONDS / 2, Counters(5))
    assert not stage.is_over(1, Counters(5))
    assert stage.is_over(2, Counters(5))
    assert not stage.leaving.names


def test_what_is_in_flight_or_new_keeps_it() -> None:
    stage = Stage()
    assert not stage.is_over(1, Counters(5, active_requests=1))
    assert not stage.is_over(2, Counters(5, active_requests=1))
    assert not stage.is_over(3, Counters(6))
    assert stage.is_over(4, Counters(6))


def test_an_open_connection_keeps_one_of_tcp() -> None:
    stage = Stage(Spec(name="web", protocol=Protocol.TCP, drain_timeout=30))
    for second in range(1, 10):
        assert not stage.is_over(second, Counters(connections=3, active_connections=1))
    assert stage.is_over(10, Counters(connections=3))


def test_without_an_envoy_only_the_drain_timeout_ends_it() -> None:
    stage = Stage()
    assert not any(stage.is_over(second, None) for second in range(1, 30))
    assert stage.is_over(30, None)


def test_one_that_comes_back_does_not_leave() -> None:
    stage = Stage()
    stage.leaving.configure({}, {"web"})
    assert not stage.leaving.names
