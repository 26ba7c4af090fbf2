"""Wakes that served nothing: the idle time grows with each in a row."""

from __future__ import annotations

import pytest

from reconciler.core.events import DemandSeen, Drained, Event, Ready, ReplicasAtZero, WakeCommanded
from reconciler.core.record import Record, State
from reconciler.core.spec import Spec, UsageUnit
from reconciler.core.traffic import PROXY_HEADER_BYTES, ServiceUsage, Usage
from reconciler.engine.unserved import GREETING_SECONDS, LONGEST_SECONDS, NONE, RETURN_SECONDS, UnservedWakes

SPEC = Spec(name="db", idle_by=UsageUnit.BYTES, idle_after=5.0)


def usage(moved: int = 0, at: float = 0.0, arrived: int = 0, open_connections: int = 0) -> ServiceUsage:
    return ServiceUsage(Usage.QUIET, at + 1, at, 0, "", moved, arrived, open_connections)


class Life:
    """A service that falls asleep and wakes, with its time."""

    def __init__(self) -> None:
        self.unserved, self.now = NONE, 1000.0
        self._record = Record(State.Active, self.now, "", 1, "")

    def goes(self, state: State, event: type[Event], open_connections: int = 0) -> None:
        before, self._record = self._record, Record(state, self.now, "", 1, "")
        seen = usage(open_connections=open_connections)
        self.unserved = self.unserved.stepped(before, self._record, event.__name__, seen)

    def sleeps(self, open_connections: int = 1) -> None:
        self.goes(State.Draining, Drained)
        self.goes(State.ScaledToZero, Drained, open_connections)

    def wakes(self, after: float = 0.2, event: type[Event] = DemandSeen) -> None:
        self.now += after
        self.goes(State.Waking, event)
        self.goes(State.Active, Ready)

    def cycles(self, number: int) -> UnservedWakes:
        for _ in range(number):
            self.wakes()
            self.now += 100
            self.sleeps()
        return self.unserved


@pytest.fixture
def life() -> Life:
    life = Life()
    life.sleeps()
    return life


def test_unserved_wakes_double_the_idle_time_up_to_the_longest(life: Life) -> None:
    found = [life.cycles(1).effective(SPEC).idle_after for _ in range(12)]
    assert found[:4] == [10.0, 20.0, 40.0, 80.0]
    assert found[-1] == LONGEST_SECONDS
    long = Spec(name="db", idle_by=UsageUnit.BYTES, idle_after=2 * LONGEST_SECONDS)
    assert life.unserved.effective(long).idle_after == long.idle_after


def test_unserved_wakes_have_a_reason_and_other_services_none(life: Life) -> None:
    assert NONE.reason(SPEC) is None
    assert NONE.effective(SPEC) is SPEC
    unserved = life.cycles(2)
    found = unserved.reason(SPEC)
    assert found is not None
    assert found.message.endswith("the idle time is 20 s instead of 5 s")
    assert unserved.effective(SPEC).idle_after == 20.0
    assert unserved.reason(Spec(name="web")) is None


@pytest.mark.parametrize(
    ("after", "event", "open_connections", "served_at", "expected"),
    [
        (0.2, DemandSeen, 1, None, 4),
        (0.2, DemandSeen, 1, GREETING_SECONDS - 1, 4),
        (0.2, DemandSeen, 1, GREETING_SECONDS, 0),
        (0.2, DemandSeen, 0, None, 0),
        (RETURN_SECONDS + 1, DemandSeen, 1, None, 0),
        (0.2, WakeCommanded, 1, None, 0),
    ],
)
def test_row_ends_with_a_wake_that_is_not_an_unserved_return(
    life: Life, after: float, event: type[Event], open_connections: int, served_at: float | None, expected: int
) -> None:
    life.cycles(3)
    life.wakes(after, event)
    if served_at is not None:
        life.unserved = life.unserved.used(usage(moved=500, at=life.now + served_at, arrived=1))
    life.now += 100
    life.sleeps(open_connections)
    assert life.unserved.in_a_row == expected


def test_headers_of_new_connections_serve_nothing(life: Life) -> None:
    life.cycles(3)
    life.wakes()
    later = life.now + GREETING_SECONDS
    assert life.unserved.used(usage(moved=2 * PROXY_HEADER_BYTES, at=later, arrived=2)) is life.unserved
    assert life.unserved.used(usage(moved=2 * PROXY_HEADER_BYTES + 1, at=later, arrived=2)) is NONE


def test_recovery_and_another_scaler_are_no_unserved_wakes(life: Life) -> None:
    life.cycles(1)
    life.wakes()
    life.goes(State.Waking, Ready)
    life.goes(State.Active, Ready)
    assert life.unserved.in_a_row == 1
    life.goes(State.ScaledToZero, ReplicasAtZero)
    assert life.unserved is NONE
