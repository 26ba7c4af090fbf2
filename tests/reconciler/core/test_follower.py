"""Tests of records on followers: their events, fences, plans, and changes of leaders."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reconciler.core import events
from reconciler.core.events import Event
from reconciler.core.follower import fenced, follower_event, in_force, on_demoted, on_elected
from reconciler.core.judge import Observed
from reconciler.core.reasons import Diagnosis
from reconciler.core.record import Record, State
from reconciler.core.spec import Spec
from reconciler.plan import AtLeast, Zero, followed, plan

POD = ("10.0.0.1:80",)
RUNS = Observed(replicas=1, endpoints=POD, held=0, relayed=0, route_acked_at=90.0)
SPEC = Spec(name="web")


def record(state: State, **more: Any) -> Record:
    return replace(Record(state, 50.0, "", 2, "127.64.0.1:1"), **more)


@pytest.mark.parametrize(
    ("state", "seen", "fence", "event"),
    [
        (State.ScaledToZero, replace(RUNS, held=1), False, events.DemandSeen),
        (State.ScaledToZero, RUNS, False, None),
        (State.ScaledToZero, replace(RUNS, replicas=0, endpoints=()), False, None),
        (State.Waking, RUNS, False, events.Ready),
        (State.Waking, RUNS, True, None),
        (
            State.Waking,
            replace(RUNS, endpoints=(), diagnosis=Diagnosis.parse("ImagePullBackOff")),
            True,
            events.WakeStalled,
        ),
        (State.Active, replace(RUNS, endpoints=()), False, events.EndpointsLost),
        (State.Idle, replace(RUNS, endpoints=()), False, events.EndpointsLost),
        (State.Active, replace(RUNS, replicas=0, endpoints=()), False, None),
        (State.Active, replace(RUNS, replicas=0, endpoints=(), held=1), False, events.EndpointsLost),
        (State.Active, replace(RUNS, replicas=None, endpoints=(), held=1), False, None),
        (State.Idle, replace(RUNS, held=1), False, None),
        (State.Draining, replace(RUNS, held=1), True, None),
        (State.Draining, replace(RUNS, held=1), False, events.DemandSeen),
        (State.Draining, replace(RUNS, replicas=0, endpoints=()), True, None),
    ],
)
def test_follower_event_leads_only_towards_awake(
    state: State, seen: Observed, fence: bool, event: type[Event] | None
) -> None:
    found = follower_event(record(state), seen, fence)
    assert (type(found) if found else None) is event


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("held", [None, 0, 1])
def test_fenced_is_true_for_records_that_may_end_asleep(state: State, held: int | None) -> None:
    ends = state is State.Draining or (state is State.Waking and held == 0)
    assert fenced(record(state), replace(RUNS, held=held)) is ends


def test_followed_plan_never_scales_to_zero() -> None:
    asleep = record(State.ScaledToZero)
    assert plan(asleep, SPEC, 100.0).scale == Zero()
    assert followed(plan(asleep, SPEC, 100.0), asleep, False).scale is None
    waking = record(State.Waking)
    assert followed(plan(waking, SPEC, 100.0), waking, False).scale == AtLeast(2)


def test_followed_plan_with_fence_does_not_release() -> None:
    waking = record(State.Waking)
    assert followed(plan(waking, SPEC, 100.0), waking, False).release
    assert not followed(plan(waking, SPEC, 100.0), waking, True).release


def test_followed_plan_has_deadline_for_waking_only() -> None:
    for state in State:
        one = record(state)
        assert (followed(plan(one, SPEC, 100.0), one, False).deadline is not None) is (state is State.Waking)


def test_in_force_needs_equal_state_and_acknowledged_route() -> None:
    draining, waking = record(State.Draining), record(State.Waking)
    assert in_force(draining, draining, True, RUNS) is None
    assert in_force(record(State.Active), draining, True, RUNS) == "it is Active"
    assert in_force(draining, draining, True, replace(RUNS, route_acked_at=None, waiting_for="a")) == "a"
    assert in_force(waking, waking, True, RUNS) is None
    assert in_force(waking, waking, False, RUNS) == "it wakes"


@pytest.mark.parametrize(
    ("before", "replicas", "state", "zeroed"),
    [
        (record(State.ScaledToZero), 2, State.Active, False),
        (record(State.ScaledToZero), None, State.Active, False),
        (record(State.ScaledToZero), 0, State.ScaledToZero, True),
        (record(State.ScaledToZero, zeroed=True), 2, State.ScaledToZero, True),
        (record(State.Draining), 2, State.Active, False),
        (record(State.Waking), 2, State.Waking, False),
        (record(State.Idle), 2, State.Idle, False),
        (record(State.Active), 2, State.Active, False),
    ],
)
def test_on_elected_makes_unconfirmed_sleep_active(
    before: Record, replicas: int | None, state: State, zeroed: bool
) -> None:
    after = on_elected(before, replicas, 100.0)
    assert (after.state, after.zeroed) == (state, zeroed)
    assert after.since == (100.0 if state is not before.state else 50.0)


def test_on_elected_limits_since_to_own_clock() -> None:
    assert on_elected(record(State.Idle, since=9e9), 2, 100.0).since == 100.0


def test_on_demoted_ends_drains_only() -> None:
    assert on_demoted(record(State.Draining), 100.0).state is State.Active
    assert on_demoted(record(State.ScaledToZero), 100.0).state is State.ScaledToZero
