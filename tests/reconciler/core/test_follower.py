"""What follows for a record when another replica leads, or did: a follower's steps, fences, an heir's records."""

from __future__ import annotations

from dataclasses import replace

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


def record(state: State, **more: object) -> Record:
    return replace(Record(state, 50.0, "", 2, "127.64.0.1:1"), **more)  # type: ignore[arg-type]


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
def test_a_follower_steps_only_towards_being_awake(
    state: State, seen: Observed, fence: bool, event: type[Event] | None
) -> None:
    found = follower_event(record(state), seen, fence)
    assert (type(found) if found else None) is event


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("held", [None, 0, 1])
def test_what_the_leader_may_end_is_fenced(state: State, held: int | None) -> None:
    ends = state is State.Draining or (state is State.Waking and held == 0)
    assert fenced(record(state), replace(RUNS, held=held)) is ends


def test_a_follower_puts_nothing_to_sleep() -> None:
    asleep = record(State.ScaledToZero)
    assert plan(asleep, SPEC, 100.0).scale == Zero()
    assert followed(plan(asleep, SPEC, 100.0), asleep, False).scale is None
    waking = record(State.Waking)
    assert followed(plan(waking, SPEC, 100.0), waking, False).scale == AtLeast(2)


def test_a_follower_connects_nobody_while_another_decides() -> None:
    waking = record(State.Waking)
    assert followed(plan(waking, SPEC, 100.0), waking, False).release
    assert not followed(plan(waking, SPEC, 100.0), waking, True).release


def test_a_follower_has_deadlines_of_wakes_only() -> None:
    for state in State:
        one = record(state)
        assert (followed(plan(one, SPEC, 100.0), one, False).deadline is not None) is (state is State.Waking)


def test_a_word_is_in_force_when_its_route_is_and_the_follower_did_not_go_ahead() -> None:
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
def test_a_new_leader_undoes_what_was_not_confirmed(
    before: Record, replicas: int | None, state: State, zeroed: bool
) -> None:
    after = on_elected(before, replicas, 100.0)
    assert (after.state, after.zeroed) == (state, zeroed)
    assert after.since == (100.0 if state is not before.state else 50.0)


def test_no_clock_but_our_own_says_when() -> None:
    assert on_elected(record(State.Idle, since=9e9), 2, 100.0).since == 100.0


def test_who_leads_no_more_drains_nothing() -> None:
    assert on_demoted(record(State.Draining), 100.0).state is State.Active
    assert on_demoted(record(State.ScaledToZero), 100.0).state is State.ScaledToZero
