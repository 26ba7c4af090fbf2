"""Tests of the events that follow from observations: one rule per test, with its opposite."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core import events
from reconciler.core.busy import CHECK_SECONDS, BusyAnswer, BusyUntil, ask_again_after
from reconciler.core.events import Event
from reconciler.core.judge import SETTLE_SECONDS, Observed, due, judge, undrained
from reconciler.core.machine import step
from reconciler.core.reasons import Blocker, Diagnosis, Reason
from reconciler.core.record import Record, State
from reconciler.core.spec import Protocol, Spec, UsageUnit
from reconciler.core.traffic import PROXY_HEADER_BYTES, ServiceUsage, Usage

SINCE, NOW, STALE_AFTER = 1000.0, 1010.0, 15.0
SPEC = Spec(name="web")


def a_record(state: State, **known: Any) -> Record:
    return replace(Record(state, SINCE, "idle for 5m", 3, "127.64.0.7:18001"), **known)


def a_judgement(usage: Usage, at: float = 1009.0, start: float = 1004.0, in_flight: int = 0) -> ServiceUsage:
    return ServiceUsage(usage, at, start, in_flight, f"it is {usage}")


QUIET, TRAFFIC, UNKNOWN = map(a_judgement, Usage)
IN_USE = Observed(3, ("10.0.0.1:80",), None, 0, 0, QUIET, 900.0, "")
"""Three reachable replicas without clients or traffic; the route was acknowledged earlier."""
DRAINED = replace(IN_USE, route_acked_at=1002.0)


def heard(state: State, seen: Observed, spec: Spec = SPEC, now: float = NOW, **known: object) -> Event | None:
    return judge(a_record(state, **known), spec, seen, now, STALE_AFTER)


# Unseen


@pytest.mark.parametrize("state", [State.Active, State.Idle, State.Draining])
def test_judge_with_unseen_target_keeps_service_awake(state: State) -> None:
    unseen = replace(DRAINED, replicas=None, diagnosis=Diagnosis.parse("Forbidden: no right to watch it"))
    unknown = events.TrafficUnknown("the state of the workload is unknown: Forbidden: no right to watch it")
    assert heard(state, unseen) == (None if state is State.Active else unknown)


# Asleep


def test_asleep_with_held_client_is_demand() -> None:
    assert heard(State.ScaledToZero, Observed(held=1)) == events.DemandSeen("a client is waiting")
    assert heard(State.ScaledToZero, Observed(0, held=2, traffic=UNKNOWN)) == events.DemandSeen("2 clients are waiting")


def test_asleep_with_counted_traffic_is_demand() -> None:
    busy = replace(TRAFFIC, moved=1, arrived=1)
    assert heard(State.ScaledToZero, Observed(0, traffic=busy)) == events.DemandSeen(
        "Envoy reported traffic: 1 arrived, 1 moved, 0 in flight"
    )
    before = replace(busy, window_start=999)
    assert heard(State.ScaledToZero, Observed(0, traffic=before), zeroed=True) is None


def test_asleep_with_arrivals_in_unknown_usage_is_demand() -> None:
    for usage in (Usage.UNKNOWN, Usage.QUIET):
        seen = Observed(0, traffic=replace(a_judgement(usage), arrived=1))
        assert isinstance(heard(State.ScaledToZero, seen, replace(SPEC, idle_by=UsageUnit.BYTES)), events.DemandSeen)


def test_asleep_with_unknown_usage_has_no_event() -> None:
    assert heard(State.ScaledToZero, Observed(traffic=UNKNOWN)) is None
    assert heard(State.ScaledToZero, Observed()) is None


def test_asleep_at_zero_is_confirmed_once() -> None:
    assert heard(State.ScaledToZero, Observed(0)) == events.ReplicasAtZero("confirmed")
    assert heard(State.ScaledToZero, Observed(0), zeroed=True) is None


def test_asleep_after_zero_with_endpoints_is_ready() -> None:
    assert heard(State.ScaledToZero, IN_USE, zeroed=True) == events.Ready("scaled up by another controller or user")
    assert heard(State.ScaledToZero, IN_USE) is None
    assert heard(State.ScaledToZero, replace(IN_USE, endpoints=()), zeroed=True) is None


# Waking


def test_waking_with_endpoint_is_ready() -> None:
    assert heard(State.Waking, IN_USE) == events.Ready("reachable")
    assert heard(State.Waking, replace(IN_USE, replicas=None)) == events.Ready("reachable")
    assert heard(State.Waking, Observed(3, held=1)) is None


def test_waking_with_endpoint_at_zero_replicas_is_not_ready() -> None:
    assert heard(State.Waking, replace(IN_USE, replicas=0, held=1)) is None


def test_waking_with_diagnosis_is_stalled_once() -> None:
    stuck = Observed(3, diagnosis=Diagnosis.parse("exit code 1"), held=1)
    assert heard(State.Waking, stuck) == events.WakeStalled("exit code 1")
    assert heard(State.Waking, stuck, stalled="exit code 1") is None
    assert heard(State.Waking, stuck, stalled="no image") == events.WakeStalled("exit code 1")


# Active


@pytest.mark.parametrize("state", [State.Active, State.Idle])
def test_awake_without_endpoints_is_lost_or_at_zero(state: State) -> None:
    assert heard(state, replace(IN_USE, endpoints=())) == events.EndpointsLost("no endpoint can be reached")
    assert heard(state, replace(IN_USE, endpoints=(), diagnosis=Diagnosis.parse("exit 139"))) == events.EndpointsLost(
        "exit 139"
    )
    assert heard(state, replace(IN_USE, replicas=0)) == events.ReplicasAtZero(
        "scaled to zero by another controller or user"
    )


@pytest.mark.parametrize("state", [State.Active, State.Idle, State.Draining])
def test_ended_workload_has_the_reason_of_its_end(state: State) -> None:
    ended = replace(IN_USE, replicas=0, endpoints=(), end="stopped together with zenvoy up")
    assert heard(state, ended) == events.ReplicasAtZero("stopped together with zenvoy up")
    if state is not State.Draining:
        restarted = replace(IN_USE, endpoints=(), end="its program changed")
        assert heard(state, restarted) == events.EndpointsLost("its program changed")


@pytest.mark.parametrize("state", [State.Active, State.Idle])
def test_awake_with_withdrawn_endpoints_starts_rollout(state: State) -> None:
    withdrawn = replace(IN_USE, endpoints=(), withdrawn=True)
    assert heard(state, withdrawn) == events.RolloutStarted("new connections wait for the new program")
    assert isinstance(heard(state, replace(withdrawn, replicas=0)), events.ReplicasAtZero)


def test_waking_with_withdrawn_endpoints_continues() -> None:
    assert heard(State.Waking, replace(IN_USE, endpoints=(), withdrawn=True)) is None


def test_active_with_later_quiet_sample_is_quiet() -> None:
    assert heard(State.Active, IN_USE) == events.Quiet("no traffic")


@pytest.mark.parametrize(
    "seen",
    [
        pytest.param(replace(IN_USE, traffic=TRAFFIC), id="traffic"),
        pytest.param(replace(IN_USE, traffic=UNKNOWN), id="unknown"),
        pytest.param(replace(IN_USE, traffic=None), id="no sample yet"),
        pytest.param(replace(IN_USE, traffic=a_judgement(Usage.QUIET, at=SINCE)), id="sample from before"),
        pytest.param(replace(IN_USE, held=1), id="held client"),
        pytest.param(replace(IN_USE, held=None), id="holder missing"),
        pytest.param(Observed(), id="just restarted"),
    ],
)
def test_active_without_evidence_has_no_event(seen: Observed) -> None:
    assert heard(State.Active, seen) is None


def test_active_with_stale_sample_has_no_event() -> None:
    assert heard(State.Active, IN_USE, now=QUIET.taken_at + STALE_AFTER) == events.Quiet("no traffic")
    assert heard(State.Active, IN_USE, now=QUIET.taken_at + STALE_AFTER + 1) is None


# Idle


def test_idle_with_quiet_samples_has_no_event() -> None:
    assert heard(State.Idle, IN_USE) is None


def test_idle_with_use_is_demand_or_traffic() -> None:
    assert heard(State.Idle, replace(IN_USE, held=1)) == events.DemandSeen("a client is waiting")
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
def test_idle_or_draining_with_unknown_usage_is_unknown(state: State, seen: Observed, now: float, reason: str) -> None:
    assert heard(state, seen, now=now) == events.TrafficUnknown(reason)


def test_draining_without_new_sample_is_unknown_after_delay() -> None:
    old = replace(IN_USE, traffic=a_judgement(Usage.QUIET, at=990))
    assert heard(State.Draining, old, now=SINCE + STALE_AFTER) is None
    assert isinstance(heard(State.Draining, old, now=SINCE + STALE_AFTER + 0.1), events.TrafficUnknown)


# Draining


def test_draining_after_acknowledged_quiet_sample_is_drained() -> None:
    assert heard(State.Draining, DRAINED) == events.Drained("idle for 5m")


@pytest.mark.parametrize(
    ("seen", "blocker"),
    [
        pytest.param(
            replace(DRAINED, relayed=2), Blocker(Reason.CONNECTIONS_RELAYED, "2 connections are relayed"), id="relayed"
        ),
        pytest.param(
            replace(DRAINED, relayed=1),
            Blocker(Reason.CONNECTIONS_RELAYED, "1 connection is relayed"),
            id="one relayed",
        ),
        pytest.param(
            replace(DRAINED, relayed=None),
            Blocker(Reason.HOLDER_MISSING, "a holder is not connected"),
            id="relayed not known",
        ),
        pytest.param(
            replace(DRAINED, route_acked_at=None, waiting_for="Envoy b"),
            Blocker(Reason.ROUTE_NOT_ACKNOWLEDGED, "the route is not acknowledged: Envoy b"),
            id="no acknowledgement",
        ),
        pytest.param(
            replace(DRAINED, traffic=a_judgement(Usage.QUIET, at=1002.05)),
            Blocker(Reason.SAMPLE_TOO_OLD, "no sample since the route was acknowledged"),
            id="sample too soon",
        ),
        pytest.param(
            replace(DRAINED, traffic=a_judgement(Usage.TRAFFIC, start=999, in_flight=1)),
            Blocker(Reason.IN_FLIGHT, "1 request in flight"),
            id="in flight",
        ),
    ],
)
def test_draining_with_blocker_has_no_event(seen: Observed, blocker: Blocker) -> None:
    assert heard(State.Draining, seen) is None
    assert undrained(a_record(State.Draining), SPEC, seen) == blocker


def test_draining_with_earlier_acknowledgement_has_no_event() -> None:
    """The first observation in Draining has the acknowledgement of the route to the pods."""
    for traffic in (QUIET, a_judgement(Usage.QUIET, at=SINCE)):
        seen = replace(IN_USE, route_acked_at=900.0, traffic=traffic)
        assert heard(State.Draining, seen) is None


def test_draining_sample_after_settling_is_drained() -> None:
    just = a_judgement(Usage.QUIET, at=1002.0 + SETTLE_SECONDS)
    assert heard(State.Draining, replace(DRAINED, traffic=just)) == events.Drained("idle for 5m")


def test_draining_with_new_client_is_demand_or_traffic() -> None:
    assert heard(State.Draining, replace(DRAINED, held=1)) == events.DemandSeen("a client is waiting")
    new = replace(TRAFFIC, moved=1)
    assert heard(State.Draining, replace(DRAINED, traffic=new)) == events.Traffic("it is traffic")


def test_draining_with_earlier_work_in_flight_has_no_event() -> None:
    assert heard(State.Draining, replace(DRAINED, traffic=replace(TRAFFIC, in_flight=1))) is None


CROSSING = replace(a_judgement(Usage.TRAFFIC, at=1009, start=999), moved=1)


def test_commanded_drain_ignores_traffic_before_the_command() -> None:
    """Otherwise `zenvoy sleep` would fail right after a request."""
    commanded = replace(DRAINED, traffic=CROSSING, sleep_commanded_at=SINCE)
    assert heard(State.Draining, commanded) == events.Drained("idle for 5m")
    assert heard(State.Draining, replace(commanded, traffic=replace(CROSSING, in_flight=1))) is None
    earlier = replace(commanded, sleep_commanded_at=SINCE - 1)
    assert isinstance(heard(State.Draining, earlier), events.Traffic), "the command was for an earlier drain"


@pytest.mark.parametrize("by", UsageUnit)
def test_idle_drain_with_traffic_before_it_ends(by: UsageUnit) -> None:
    seen = replace(DRAINED, traffic=CROSSING)
    assert heard(State.Draining, seen, replace(SPEC, idle_by=by)) == events.Traffic("it is traffic")


@pytest.mark.parametrize(("commanded_at", "silence"), [(SINCE, 15.0), (SINCE - 1, 300.0), (None, 300.0)])
def test_drain_by_bytes_needs_silent_connections(commanded_at: float | None, silence: float) -> None:
    """A service may compute a response in silence, for longer than one window.

    A client that connects in silence just before the route to the pods ends has all of `idleAfter` too, unless a sleep
    was commanded.
    """
    spec = replace(SPEC, idle_by=UsageUnit.BYTES, idle_after=300, drain_timeout=30)
    quiet = replace(a_judgement(Usage.QUIET, at=1020), open=1)
    drained = replace(DRAINED, traffic=quiet, sleep_commanded_at=commanded_at)
    for silent_since in (None, 1020 - silence + 1):
        seen = replace(drained, silent_since=silent_since)
        assert heard(State.Draining, seen, spec, now=1020) is None
        assert undrained(a_record(State.Draining), spec, seen) == Blocker(
            Reason.NOT_SILENT, f"1 open, and not yet silent for {silence:g} s"
        )
    for seen in (
        replace(drained, silent_since=1020 - silence),
        replace(drained, traffic=replace(quiet, open=0)),
    ):
        assert isinstance(heard(State.Draining, seen, spec, now=1020), events.Drained)


def test_drain_by_bytes_ignores_silent_relayed_connections() -> None:
    relayed = replace(DRAINED, relayed=4)
    assert heard(State.Draining, relayed, replace(SPEC, idle_by=UsageUnit.BYTES)) == events.Drained("idle for 5m")
    assert heard(State.Draining, relayed, replace(SPEC, idle_by=UsageUnit.CONNECTIONS)) is None


@pytest.mark.parametrize("idle_by", [UsageUnit.CONNECTIONS, UsageUnit.BYTES])
def test_wake_by_bytes_ignores_connections_without_bytes(idle_by: UsageUnit) -> None:
    probed = replace(TRAFFIC, moved=1 if idle_by is UsageUnit.CONNECTIONS else PROXY_HEADER_BYTES, arrived=1)
    spec = Spec(name="db", protocol=Protocol.TCP, idle_by=idle_by, wake_by=UsageUnit.BYTES)
    usual = replace(spec, wake_by=UsageUnit.CONNECTIONS)
    asleep = Observed(0, traffic=probed)
    assert heard(State.ScaledToZero, asleep, spec, zeroed=True) is None
    assert isinstance(heard(State.ScaledToZero, replace(asleep, held=1), spec, zeroed=True), events.DemandSeen)
    assert isinstance(heard(State.ScaledToZero, asleep, usual, zeroed=True), events.DemandSeen)
    seen = replace(DRAINED, traffic=probed)
    assert isinstance(heard(State.Draining, seen, spec), events.Drained)
    assert isinstance(heard(State.Draining, seen, usual), events.Traffic)


def test_wake_by_bytes_counts_more_bytes_than_headers() -> None:
    used = replace(TRAFFIC, moved=PROXY_HEADER_BYTES + 1, arrived=1, in_flight=1)
    spec = Spec(name="db", protocol=Protocol.TCP, idle_by=UsageUnit.BYTES, wake_by=UsageUnit.BYTES)
    assert isinstance(heard(State.Draining, replace(DRAINED, traffic=used), spec), events.Traffic)


def test_draining_at_zero_replicas_is_at_zero() -> None:
    assert heard(State.Draining, replace(DRAINED, replicas=0)) == events.ReplicasAtZero(
        "scaled to zero by another controller or user"
    )


# Being deleted

DEPARTING = replace(SPEC, departing=True)


@pytest.mark.parametrize("state", [State.ScaledToZero, State.Draining])
@pytest.mark.parametrize("seen", [Observed(), Observed(0, held=0), DRAINED])
def test_deleted_sleeping_service_is_woken(state: State, seen: Observed) -> None:
    assert heard(state, seen, DEPARTING) == events.DeletionStarted("it is being deleted")


@pytest.mark.parametrize("state", [State.Waking, State.Active, State.Idle])
def test_deleted_awake_service_has_the_same_events(state: State) -> None:
    for seen in (IN_USE, replace(IN_USE, endpoints=()), replace(IN_USE, traffic=TRAFFIC), replace(IN_USE, held=1)):
        assert heard(state, seen, DEPARTING) == heard(state, seen)


def test_due_wake_of_deleted_service_is_wanted() -> None:
    unused = replace(DRAINED, endpoints=())
    event = due(a_record(State.Waking), DEPARTING, unused, events.WakeTimedOut, NOW)
    assert isinstance(event, events.WakeTimedOut)
    assert event.wanted


def test_due_wake_of_paused_service_is_wanted() -> None:
    unused = replace(DRAINED, endpoints=())
    event = due(a_record(State.Waking), replace(SPEC, paused=True), unused, events.WakeTimedOut, NOW)
    assert isinstance(event, events.WakeTimedOut)
    assert event.wanted


# Deadlines


def wanted(seen: Observed) -> bool:
    event = due(a_record(State.Waking), SPEC, seen, events.WakeTimedOut, NOW)
    assert isinstance(event, events.WakeTimedOut)
    return event.wanted


def test_due_wake_is_wanted_unless_proved_unused() -> None:
    unused = replace(DRAINED, endpoints=())
    assert not wanted(unused)
    for unknown in (
        replace(unused, held=1),
        replace(unused, held=None),
        replace(unused, relayed=1),
        replace(unused, relayed=None),
        replace(unused, traffic=None),
        replace(unused, traffic=UNKNOWN),
        replace(unused, traffic=a_judgement(Usage.QUIET, at=SINCE)),
        replace(unused, traffic=a_judgement(Usage.TRAFFIC, in_flight=1)),
        replace(unused, route_acked_at=None),
    ):
        assert wanted(unknown), unknown


AT_WORK = Blocker(Reason.BUSY, "GET /busy is answered with 200")
CHECKED = replace(SPEC, has_busy_check=True)
ANSWERED = BusyAnswer(SINCE - 1, AT_WORK)
LONG_AGO = BusyAnswer(SINCE - ask_again_after(CHECKED) - CHECK_SECONDS - 1, AT_WORK)


@pytest.mark.parametrize(
    ("spec", "known", "expected"),
    [
        (SPEC, {"busy_until": BusyUntil(NOW + 1, AT_WORK)}, True),
        (SPEC, {"busy_until": BusyUntil(NOW, AT_WORK)}, False),
        (CHECKED, {"busy": ANSWERED}, True),
        (CHECKED, {"busy": ANSWERED, "end": "exit code 1"}, False),
        (CHECKED, {"busy": LONG_AGO}, False),
        (CHECKED, {"busy": BusyAnswer(SINCE - 1)}, False),
        (SPEC, {"busy": ANSWERED}, False),
    ],
    ids=["until later", "until now", "busy", "ended", "long ago", "idle", "without a check"],
)
def test_due_wake_of_a_service_at_work_is_wanted(spec: Spec, known: dict[str, Any], expected: bool) -> None:
    """A program that works without a client may be unready for a while, and a sleep would cut its work."""
    seen = replace(DRAINED, endpoints=(), **known)
    event = due(a_record(State.Waking), spec, seen, events.WakeTimedOut, NOW)
    assert isinstance(event, events.WakeTimedOut)
    assert event.wanted is expected


def test_due_wake_has_diagnosis_as_reason() -> None:
    record, stuck = (
        a_record(State.Waking),
        replace(IN_USE, endpoints=(), diagnosis=Diagnosis.parse("exit code 1"), held=1),
    )
    explained = due(record, SPEC, stuck, events.WakeTimedOut, NOW)
    assert explained and explained.reason == "exit code 1"
    unexplained = due(record, SPEC, replace(stuck, diagnosis=None), events.WakeTimedOut, NOW)
    assert unexplained and unexplained.reason == "TimedOut: not ready, and no reason is reported"


def test_due_drain_has_blocker_as_reason() -> None:
    seen = replace(DRAINED, traffic=a_judgement(Usage.TRAFFIC, start=999, in_flight=2))
    event = due(a_record(State.Draining), SPEC, seen, events.DrainTimedOut, NOW)
    assert event == events.DrainTimedOut("2 requests in flight")
    late = due(a_record(State.Draining), SPEC, DRAINED, events.DrainTimedOut, NOW)
    assert late and late.reason == "the drain took too long"


def test_due_idle_of_paused_service_is_paused() -> None:
    assert due(a_record(State.Idle), replace(SPEC, paused=True), IN_USE, events.IdleElapsed, NOW) == events.IdleElapsed(
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


@given(RECORDS, SEEN, st.sampled_from(list(UsageUnit)), st.booleans(), st.sampled_from([NOW, NOW + 60]))
def test_judge_and_step_converge_in_few_rounds(
    record: Record, seen: Observed, by: UsageUnit, departing: bool, now: float
) -> None:
    heard_events = []
    spec = replace(SPEC, idle_by=by, departing=departing)
    while event := judge(record, spec, seen, now, STALE_AFTER):
        record = step(record, event, now)
        heard_events.append(event)
        assert len(heard_events) <= len(State), heard_events


@given(RECORDS, SEEN, st.sampled_from([events.WakeTimedOut, events.DrainTimedOut, events.IdleElapsed]))
def test_due_event_always_has_a_reason(record: Record, seen: Observed, event: type[Event]) -> None:
    found = due(record, SPEC, seen, event, NOW)
    assert found and found.reason


def test_commanded_drain_allows_for_first_samples() -> None:
    starting = replace(UNKNOWN, starting=True)
    commanded = replace(DRAINED, traffic=starting, sleep_commanded_at=SINCE)
    assert heard(State.Draining, commanded) is None
    assert undrained(a_record(State.Draining), SPEC, commanded) == Blocker(
        Reason.NO_COMPLETE_SAMPLE, "there is no complete sample yet"
    )
    unknown = events.TrafficUnknown(UNKNOWN.reason)
    assert heard(State.Draining, replace(commanded, sleep_commanded_at=None)) == unknown
    assert heard(State.Draining, replace(commanded, traffic=UNKNOWN)) == unknown
    assert heard(State.Draining, replace(commanded, traffic=replace(starting, moved=1))) == unknown
    used_before = replace(starting, moved=1, window_start=SINCE - 1)
    assert heard(State.Draining, replace(commanded, traffic=used_before)) is None
