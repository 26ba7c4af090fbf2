"""What each state hears of what is seen: one rule a test, with its opposite beside it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core import events
from reconciler.core.events import Event
from reconciler.core.judge import SETTLE_SECONDS, Observed, due, judge, undrained
from reconciler.core.machine import step
from reconciler.core.reasons import Diagnosis
from reconciler.core.record import Record, State
from reconciler.core.spec import IdleBy, Spec
from reconciler.core.traffic import ServiceUsage, Usage

SINCE, NOW, STALE_AFTER = 1000.0, 1010.0, 15.0
SPEC = Spec(name="web")


def a_record(state: State, **known: object) -> Record:
    return replace(Record(state, SINCE, "idle for 5m", 3, "127.64.0.7:18001"), **known)  # type: ignore[arg-type]


def a_judgement(usage: Usage, at: float = 1009.0, start: float = 1004.0, in_flight: int = 0) -> ServiceUsage:
    return ServiceUsage(usage, at, start, in_flight, f"it is {usage}")


QUIET, TRAFFIC, UNKNOWN = map(a_judgement, Usage)
IN_USE = Observed(3, ("10.0.0.1:80",), None, 0, 0, QUIET, 900.0, "")
"""Three replicas, reachable; nobody waits; quiet; the route was acknowledged long ago."""
DRAINED = replace(IN_USE, route_acked_at=1002.0)


def heard(state: State, seen: Observed, spec: Spec = SPEC, now: float = NOW, **known: object) -> Event | None:
    return judge(a_record(state, **known), spec, seen, now, STALE_AFTER)


# Unseen


@pytest.mark.parametrize("state", [State.Active, State.Idle, State.Draining])
def test_judge_with_an_unseen_target_keeps_it_awake(state: State) -> None:
    unseen = replace(DRAINED, replicas=None, diagnosis=Diagnosis.parse("Forbidden: no right to watch it"))
    unknown = events.TrafficUnknown("what runs is not known: Forbidden: no right to watch it")
    assert heard(state, unseen) == (None if state is State.Active else unknown)


# Asleep


def test_somebody_who_waits_wakes_it_whatever_else_is_known_or_not() -> None:
    assert heard(State.ScaledToZero, Observed(held=1)) == events.DemandSeen("somebody waits")
    assert heard(State.ScaledToZero, Observed(0, held=2, traffic=UNKNOWN)) == events.DemandSeen("2 waiting")


def test_traffic_that_envoy_counted_since_it_fell_asleep_wakes_it_also_without_a_holder() -> None:
    busy = replace(TRAFFIC, moved=1, arrived=1)
    assert heard(State.ScaledToZero, Observed(0, traffic=busy)) == events.DemandSeen(
        "Envoy saw traffic: 1 arrived, 1 moved, 0 in flight"
    )
    before = replace(busy, window_start=999)
    assert heard(State.ScaledToZero, Observed(0, traffic=before), zeroed=True) is None


def test_what_is_known_to_have_come_wakes_it_in_doubt_too_whatever_is_judged_by() -> None:
    for usage in (Usage.UNKNOWN, Usage.QUIET):
        seen = Observed(0, traffic=replace(a_judgement(usage), arrived=1))
        assert isinstance(heard(State.ScaledToZero, seen, replace(SPEC, idle_by=IdleBy.BYTES)), events.DemandSeen)


def test_doubt_does_not_wake_it() -> None:
    assert heard(State.ScaledToZero, Observed(traffic=UNKNOWN)) is None
    assert heard(State.ScaledToZero, Observed()) is None


def test_zero_is_confirmed_once() -> None:
    assert heard(State.ScaledToZero, Observed(0)) == events.ReplicasAtZero("confirmed")
    assert heard(State.ScaledToZero, Observed(0), zeroed=True) is None


def test_ready_after_zero_was_seen_means_that_somebody_else_scaled_it_up() -> None:
    assert heard(State.ScaledToZero, IN_USE, zeroed=True) == events.Ready("somebody else scaled it up")
    assert heard(State.ScaledToZero, IN_USE) is None
    assert heard(State.ScaledToZero, replace(IN_USE, endpoints=()), zeroed=True) is None


# Waking


def test_it_is_awake_once_an_endpoint_can_be_dialled() -> None:
    assert heard(State.Waking, IN_USE) == events.Ready("reachable")
    assert heard(State.Waking, replace(IN_USE, replicas=None)) == events.Ready("reachable")
    assert heard(State.Waking, Observed(3, held=1)) is None


def test_an_endpoint_of_nothing_is_not_ready() -> None:
    assert heard(State.Waking, replace(IN_USE, replicas=0, held=1)) is None


def test_trouble_is_told_once_each() -> None:
    stuck = Observed(3, diagnosis=Diagnosis.parse("exit code 1"), held=1)
    assert heard(State.Waking, stuck) == events.WakeStalled("exit code 1")
    assert heard(State.Waking, stuck, stalled="exit code 1") is None
    assert heard(State.Waking, stuck, stalled="no image") == events.WakeStalled("exit code 1")


# Active


@pytest.mark.parametrize("state", [State.Active, State.Idle])
def test_a_crash_and_somebody_else_s_zero_are_told_apart(state: State) -> None:
    assert heard(state, replace(IN_USE, endpoints=())) == events.EndpointsLost("no endpoint can be reached")
    assert heard(state, replace(IN_USE, endpoints=(), diagnosis=Diagnosis.parse("exit 139"))) == events.EndpointsLost(
        "exit 139"
    )
    assert heard(state, replace(IN_USE, replicas=0)) == events.ReplicasAtZero("somebody else scaled it to zero")


def test_a_complete_quiet_sample_from_after_it_became_active_makes_it_idle() -> None:
    assert heard(State.Active, IN_USE) == events.Quiet("no traffic")


@pytest.mark.parametrize(
    "seen",
    [
        pytest.param(replace(IN_USE, traffic=TRAFFIC), id="traffic"),
        pytest.param(replace(IN_USE, traffic=UNKNOWN), id="unknown"),
        pytest.param(replace(IN_USE, traffic=None), id="no sample yet"),
        pytest.param(replace(IN_USE, traffic=a_judgement(Usage.QUIET, at=SINCE)), id="sample from before"),
        pytest.param(replace(IN_USE, held=1), id="somebody waits"),
        pytest.param(replace(IN_USE, held=None), id="holder missing"),
        pytest.param(Observed(), id="just restarted"),
    ],
)
def test_anything_less_keeps_it_active(seen: Observed) -> None:
    assert heard(State.Active, seen) is None


def test_a_quiet_sample_that_is_too_old_keeps_it_active() -> None:
    assert heard(State.Active, IN_USE, now=QUIET.taken_at + STALE_AFTER) == events.Quiet("no traffic")
    assert heard(State.Active, IN_USE, now=QUIET.taken_at + STALE_AFTER + 1) is None


# Idle


def test_idle_stays_idle_while_quiet_samples_keep_coming() -> None:
    assert heard(State.Idle, IN_USE) is None


def test_any_use_makes_it_active() -> None:
    assert heard(State.Idle, replace(IN_USE, held=1)) == events.DemandSeen("somebody waits")
    assert heard(State.Idle, replace(IN_USE, traffic=TRAFFIC)) == events.Traffic("it is traffic")


@pytest.mark.parametrize("state", [State.Idle, State.Draining])
@pytest.mark.parametrize(
    ("seen", "now", "reason"),
    [
        pytest.param(replace(IN_USE, held=None), NOW, "a holder is not connected", id="holder missing"),
        pytest.param(replace(IN_USE, traffic=None), 1024.1, "there is no recent sample", id="no sample"),
        pytest.param(IN_USE, 1024.1, "there is no recent sample", id="old sample"),
        pytest.param(replace(IN_USE, traffic=UNKNOWN), NOW, "it is unknown", id="unknown"),
        pytest.param(Observed(3, IN_USE.endpoints), NOW, "a holder is not connected", id="just restarted"),
    ],
)
def test_any_doubt_makes_it_active(state: State, seen: Observed, now: float, reason: str) -> None:
    assert heard(state, seen, now=now) == events.TrafficUnknown(reason)


def test_a_sample_is_waited_for_a_while_after_the_state_was_entered() -> None:
    old = replace(IN_USE, traffic=a_judgement(Usage.QUIET, at=990))
    assert heard(State.Draining, old, now=SINCE + STALE_AFTER) is None
    assert isinstance(heard(State.Draining, old, now=SINCE + STALE_AFTER + 0.1), events.TrafficUnknown)


# Draining


def test_drained_once_everybody_acknowledged_and_a_later_sample_shows_nothing() -> None:
    assert heard(State.Draining, DRAINED) == events.Drained("idle for 5m")


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        pytest.param(replace(DRAINED, relayed=2), "2 connections are relayed", id="relayed"),
        pytest.param(replace(DRAINED, relayed=1), "1 connection is relayed", id="one relayed"),
        pytest.param(replace(DRAINED, relayed=None), "a holder is not connected", id="relayed not known"),
        pytest.param(
            replace(DRAINED, route_acked_at=None, waiting_for="Envoy b"),
            "the route is not acknowledged: Envoy b",
            id="no acknowledgement",
        ),
        pytest.param(
            replace(DRAINED, traffic=a_judgement(Usage.QUIET, at=1002.05)),
            "no sample since the route was acknowledged",
            id="sample too soon",
        ),
        pytest.param(
            replace(DRAINED, traffic=a_judgement(Usage.TRAFFIC, start=999, in_flight=1)),
            "1 request in flight",
            id="in flight",
        ),
    ],
)
def test_until_then_it_waits_and_says_what_for(seen: Observed, why: str) -> None:
    assert heard(State.Draining, seen) is None
    assert undrained(a_record(State.Draining), SPEC, seen) == why


def test_the_acknowledgement_of_the_route_before_is_not_this_one_s() -> None:
    """The first look after entering Draining sees what was acknowledged for the pods, whatever the clocks say."""
    for traffic in (QUIET, a_judgement(Usage.QUIET, at=SINCE)):
        seen = replace(IN_USE, route_acked_at=900.0, traffic=traffic)
        assert heard(State.Draining, seen) is None


def test_a_sample_counts_once_the_workers_had_time_to_follow() -> None:
    just = a_judgement(Usage.QUIET, at=1002.0 + SETTLE_SECONDS)
    assert heard(State.Draining, replace(DRAINED, traffic=just)) == events.Drained("idle for 5m")


def test_who_comes_while_it_drains_makes_it_active() -> None:
    assert heard(State.Draining, replace(DRAINED, held=1)) == events.DemandSeen("somebody waits")
    new = replace(TRAFFIC, moved=1)
    assert heard(State.Draining, replace(DRAINED, traffic=new)) == events.Traffic("it is traffic")


def test_what_was_in_flight_before_a_drain_may_finish() -> None:
    assert heard(State.Draining, replace(DRAINED, traffic=replace(TRAFFIC, in_flight=1))) is None


CROSSING = replace(a_judgement(Usage.TRAFFIC, at=1009, start=999), moved=1)


def test_traffic_in_a_window_from_before_a_commanded_drain_counts_only_for_what_is_in_flight() -> None:
    """So that `zenvoy sleep` works right after a request."""
    commanded = replace(DRAINED, traffic=CROSSING, sleep_commanded_at=SINCE)
    assert heard(State.Draining, commanded) == events.Drained("idle for 5m")
    assert heard(State.Draining, replace(commanded, traffic=replace(CROSSING, in_flight=1))) is None
    earlier = replace(commanded, sleep_commanded_at=SINCE - 1)
    assert isinstance(heard(State.Draining, earlier), events.Traffic), "that command is not of this drain"


@pytest.mark.parametrize("by", IdleBy)
def test_a_drain_of_idleness_ends_when_the_last_moments_of_it_were_not_idle(by: IdleBy) -> None:
    seen = replace(DRAINED, traffic=CROSSING)
    assert heard(State.Draining, seen, replace(SPEC, idle_by=by)) == events.Traffic("it is traffic")


def test_by_bytes_an_open_connection_has_to_be_silent_for_a_while() -> None:
    """A query is computed in silence, and one window without a byte may be a short one."""
    spec = replace(SPEC, idle_by=IdleBy.BYTES, idle_after=300, drain_timeout=30)
    quiet = replace(a_judgement(Usage.QUIET, at=1020), open=1)
    for silent_since in (None, 1006.0):
        seen = replace(DRAINED, traffic=quiet, silent_since=silent_since)
        assert heard(State.Draining, seen, spec, now=1020) is None
        assert undrained(a_record(State.Draining), spec, seen) == "1 open, and not yet silent for 15 s"
    for seen in (
        replace(DRAINED, traffic=quiet, silent_since=1005.0),
        replace(DRAINED, traffic=replace(quiet, open=0)),
    ):
        assert isinstance(heard(State.Draining, seen, spec, now=1020), events.Drained)


def test_silent_relayed_connections_do_not_keep_a_service_awake_that_is_judged_by_bytes() -> None:
    relayed = replace(DRAINED, relayed=4)
    assert heard(State.Draining, relayed, replace(SPEC, idle_by=IdleBy.BYTES)) == events.Drained("idle for 5m")
    assert heard(State.Draining, relayed, replace(SPEC, idle_by=IdleBy.CONNECTIONS)) is None


def test_somebody_else_s_zero_ends_the_drain() -> None:
    assert heard(State.Draining, replace(DRAINED, replicas=0)) == events.ReplicasAtZero(
        "somebody else scaled it to zero"
    )


# Being deleted

DEPARTING = replace(SPEC, departing=True)


@pytest.mark.parametrize("state", [State.ScaledToZero, State.Draining])
@pytest.mark.parametrize("seen", [Observed(), Observed(0, held=0), DRAINED])
def test_one_that_is_deleted_is_woken_whatever_is_seen(state: State, seen: Observed) -> None:
    assert heard(state, seen, DEPARTING) == events.WakeCommanded("it is being deleted")


@pytest.mark.parametrize("state", [State.Waking, State.Active, State.Idle])
def test_what_is_awake_hears_the_same_while_it_is_deleted(state: State) -> None:
    for seen in (IN_USE, replace(IN_USE, endpoints=()), replace(IN_USE, traffic=TRAFFIC), replace(IN_USE, held=1)):
        assert heard(state, seen, DEPARTING) == heard(state, seen)


def test_the_wake_of_one_that_is_deleted_is_wanted_though_nobody_is_there() -> None:
    nobody = replace(DRAINED, endpoints=())
    event = due(a_record(State.Waking), DEPARTING, nobody, events.WakeTimedOut)
    assert isinstance(event, events.WakeTimedOut)
    assert event.wanted


def test_nobody_stops_what_is_paused_and_takes_long_to_come_back() -> None:
    nobody = replace(DRAINED, endpoints=())
    event = due(a_record(State.Waking), replace(SPEC, paused=True), nobody, events.WakeTimedOut)
    assert isinstance(event, events.WakeTimedOut)
    assert event.wanted


# Deadlines


def wanted(seen: Observed) -> bool:
    event = due(a_record(State.Waking), SPEC, seen, events.WakeTimedOut)
    assert isinstance(event, events.WakeTimedOut)
    return event.wanted


def test_a_wake_that_times_out_is_wanted_unless_it_is_known_that_nobody_is_there() -> None:
    nobody = replace(DRAINED, endpoints=())
    assert not wanted(nobody)
    for unknown in (
        replace(nobody, held=1),
        replace(nobody, held=None),
        replace(nobody, relayed=1),
        replace(nobody, relayed=None),
        replace(nobody, traffic=None),
        replace(nobody, traffic=UNKNOWN),
        replace(nobody, traffic=a_judgement(Usage.QUIET, at=SINCE)),
        replace(nobody, traffic=a_judgement(Usage.TRAFFIC, in_flight=1)),
        replace(nobody, route_acked_at=None),
    ):
        assert wanted(unknown), unknown


def test_a_wake_that_times_out_says_why() -> None:
    record, stuck = (
        a_record(State.Waking),
        replace(IN_USE, endpoints=(), diagnosis=Diagnosis.parse("exit code 1"), held=1),
    )
    assert due(record, SPEC, stuck, events.WakeTimedOut).reason == "exit code 1"
    unexplained = due(record, SPEC, replace(stuck, diagnosis=None), events.WakeTimedOut)
    assert unexplained.reason == "TimedOut: not ready, and no reason is reported"


def test_a_drain_that_times_out_says_what_was_in_the_way() -> None:
    seen = replace(DRAINED, traffic=a_judgement(Usage.TRAFFIC, start=999, in_flight=2))
    event = due(a_record(State.Draining), SPEC, seen, events.DrainTimedOut)
    assert event == events.DrainTimedOut("2 requests in flight")
    assert due(a_record(State.Draining), SPEC, DRAINED, events.DrainTimedOut).reason == "the drain took too long"


def test_idle_elapsed_carries_the_pause() -> None:
    assert due(a_record(State.Idle), replace(SPEC, paused=True), IN_USE, events.IdleElapsed) == events.IdleElapsed(
        "idle for all of idleAfter", paused=True
    )


# All together

TIMES = st.sampled_from([SINCE - 5, SINCE, SINCE + 1, NOW, NOW + 3])
SEEN = st.builds(
    Observed,
    replicas=st.sampled_from([None, 0, 1]),
    endpoints=st.sampled_from([(), ("10.0.0.1:80",)]),
    diagnosis=st.sampled_from([None, Diagnosis.parse("exit code 1")]),
    held=st.sampled_from([None, 0, 1]),
    relayed=st.sampled_from([None, 0, 1]),
    traffic=st.none()
    | st.builds(ServiceUsage, st.sampled_from(list(Usage)), TIMES, TIMES, st.sampled_from([0, 1]), st.just("")),
    route_acked_at=st.none() | TIMES,
)
RECORDS = st.builds(
    a_record,
    state=st.sampled_from(list(State)),
    since=TIMES,
    stalled=st.sampled_from([None, "no image"]),
    zeroed=st.booleans(),
)


@given(RECORDS, SEEN, st.sampled_from(list(IdleBy)), st.booleans(), st.sampled_from([NOW, NOW + 60]))
def test_judge_and_step_agree_after_a_few_rounds_whatever_is_seen(
    record: Record, seen: Observed, by: IdleBy, departing: bool, now: float
) -> None:
    heard_events = []
    spec = replace(SPEC, idle_by=by, departing=departing)
    while event := judge(record, spec, seen, now, STALE_AFTER):
        record = step(record, event, now)
        heard_events.append(event)
        assert len(heard_events) <= len(State), heard_events


@given(RECORDS, SEEN, st.sampled_from([events.WakeTimedOut, events.DrainTimedOut, events.IdleElapsed]))
def test_a_deadline_always_says_why(record: Record, seen: Observed, event: type[Event]) -> None:
    assert due(record, SPEC, seen, event).reason


def test_commanded_drain_waits_for_the_first_samples() -> None:
    starting = replace(UNKNOWN, starting=True)
    commanded = replace(DRAINED, traffic=starting, sleep_commanded_at=SINCE)
    assert heard(State.Draining, commanded) is None
    assert undrained(a_record(State.Draining), SPEC, commanded) == "there is no complete sample yet"
    unknown = events.TrafficUnknown(UNKNOWN.reason)
    assert heard(State.Draining, replace(commanded, sleep_commanded_at=None)) == unknown
    assert heard(State.Draining, replace(commanded, traffic=UNKNOWN)) == unknown
    assert heard(State.Draining, replace(commanded, traffic=replace(starting, moved=1))) == unknown
