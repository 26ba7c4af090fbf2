"""Tests of the machine: every state and event, against a table written from the design, not from the code."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any

import pytest

from reconciler.core import events
from reconciler.core.events import (
    BusySeen,
    DemandSeen,
    Drained,
    DrainTimedOut,
    EndpointsLost,
    Event,
    IdleElapsed,
    Quiet,
    Ready,
    ReplicasAtZero,
    RolloutStarted,
    SleepCommanded,
    Traffic,
    TrafficUnknown,
    WakeCommanded,
    WakeStalled,
    WakeTimedOut,
)
from reconciler.core.machine import TABLE, UnlistedEvent, step
from reconciler.core.record import Record, State

ScaledToZero, Waking, Active, Idle, Draining = State

# A row per event and a column per state: the next state; `=` for no change of state; `!` for a pair that is an error of
# the caller.
COLUMNS = (ScaledToZero, Waking, Active, Idle, Draining)
LETTERS = {"Z": ScaledToZero, "W": Waking, "A": Active, "I": Idle, "D": Draining}
EXPECTED = """
                          Z  W  A  I  D
  DemandSeen              W  =  =  A  A
  Ready                   =  A  =  =  =
  Ready, zeroed           A  A  =  =  =
  WakeStalled             !  =  !  !  !
  WakeTimedOut, wanted    !  =  !  !  !
  WakeTimedOut, unwanted  !  Z  !  !  !
  ReplicasAtZero          =  Z  Z  Z  Z
  EndpointsLost           !  !  W  W  !
  RolloutStarted          !  !  W  W  !
  Quiet                   !  !  I  =  =
  Traffic                 !  !  =  A  A
  TrafficUnknown          !  !  =  A  A
  BusySeen                !  !  =  A  A
  IdleElapsed             !  !  !  D  !
  IdleElapsed, paused     !  !  !  =  !
  Drained                 !  !  !  !  Z
  DrainTimedOut           !  !  !  !  A
  WakeCommanded           W  =  =  A  A
  SleepCommanded          =  =  D  D  =
  ProgramOutdated         =  =  D  D  =
  DeletionStarted         W  !  !  !  A
"""
VARIANTS: dict[str, Event] = {
    "WakeTimedOut, wanted": WakeTimedOut("why", wanted=True),
    "WakeTimedOut, unwanted": WakeTimedOut("why", wanted=False),
    "IdleElapsed, paused": IdleElapsed("why", paused=True),
}


@dataclass(frozen=True)
class Case:
    """A cell of the table."""

    record: Record
    event: Event
    cell: str

    def __str__(self) -> str:
        return f"{self.record.state}-{self.event!r}"


def a_record(state: State, **known: Any) -> Record:
    return replace(Record(state, 100.0, "before", 3, "127.64.0.7:18001"), **known)


def cases() -> list[Case]:
    found = []
    for line in EXPECTED.strip().splitlines()[1:]:
        label, cells = line[:26].strip(), line[26:].split()
        event = VARIANTS.get(label) or getattr(events, label.split(",")[0])("why")
        for state, cell in zip(COLUMNS, cells, strict=True):
            found.append(Case(a_record(state, zeroed=label.endswith("zeroed")), event, cell))
    return found


def all_events() -> set[type[Event]]:
    return {
        kind
        for kind in vars(events).values()
        if isinstance(kind, type) and issubclass(kind, Event) and kind is not Event
    }


def test_expected_table_covers_every_state_and_event() -> None:
    covered = {(case.record.state, type(case.event)) for case in cases()}
    assert covered == set(itertools.product(State, all_events()))


@pytest.mark.parametrize("case", cases(), ids=str)
def test_step_for_every_state_and_event_matches_table(case: Case) -> None:
    if case.cell == "!":
        kept = replace(case.record)
        with pytest.raises(UnlistedEvent) as raised:
            step(case.record, case.event, 107.0)
        assert case.event.name in str(raised.value) and case.record.state in str(raised.value)
        assert case.record == kept
        return
    after = step(case.record, case.event, 107.0)
    if case.cell == "=":
        reason = "why" if isinstance(case.event, BusySeen) else "before"
        assert (after.state, after.since, after.reason) == (case.record.state, 100.0, reason)
    else:
        assert (after.state, after.since, after.reason) == (LETTERS[case.cell], 107.0, "why")
    assert (after.replicas, after.hold_address) == (3, "127.64.0.7:18001")


@pytest.mark.parametrize("case", [case for case in cases() if case.cell not in "=!"], ids=str)
def test_step_to_other_state_resets_stalled_and_zeroed(case: Case) -> None:
    after = step(replace(case.record, stalled="it was stuck"), case.event, 107.0)
    assert after.stalled is None
    assert after.zeroed is isinstance(case.event, ReplicasAtZero)


@pytest.mark.parametrize("case", [case for case in cases() if case.cell == "="], ids=str)
def test_step_to_same_state_updates_details_only(case: Case) -> None:
    after = step(case.record, case.event, 107.0)
    match case.event:
        case ReplicasAtZero():
            assert after == replace(case.record, zeroed=True)
        case WakeStalled() | WakeTimedOut():
            assert after == replace(case.record, stalled="why")
        case BusySeen():
            assert after == replace(case.record, reason="why")
        case _:
            assert after is case.record


def test_step_without_change_returns_same_object() -> None:
    asleep = step(a_record(ScaledToZero), ReplicasAtZero(), 101.0)
    assert step(asleep, ReplicasAtZero(), 102.0) is asleep
    waking = step(a_record(Waking), WakeStalled("no image"), 101.0)
    assert step(waking, WakeStalled("no image"), 102.0) is waking
    assert step(waking, WakeStalled("no node"), 103.0).stalled == "no node"


def test_step_with_undefined_event_raises() -> None:
    class Invented(Event):
        pass

    for state in State:
        with pytest.raises(UnlistedEvent, match=f"Invented is not listed for {state}"):
            step(a_record(state), Invented(), 0.0)


def test_table_has_no_unreachable_rows() -> None:
    for pair, rows in itertools.groupby(TABLE, key=lambda row: (row.source, row.event)):
        guards = [row.when for row in rows]
        assert None not in guards[:-1], pair


class Talk:
    """A sequence of steps: `>> event` applies an event, `>> 5` advances the clock, `<< state` asserts the state."""

    def __init__(self, state: State) -> None:
        self.record = a_record(state)
        self.now = 100.0

    def __rshift__(self, said: Event | float) -> Talk:
        if isinstance(said, Event):
            self.record = step(self.record, said, self.now)
        else:
            self.now += said
        return self

    def __lshift__(self, state: State) -> Talk:
        assert self.record.state is state, f"at {self.now}: {self.record}"
        return self


def test_machine_runs_whole_cycle() -> None:
    talk = Talk(ScaledToZero)
    assert (
        talk
        >> ReplicasAtZero("confirmed") << ScaledToZero
        >> DemandSeen("a client is waiting") << Waking
        >> 2.5
        >> Ready("reachable") << Active
        >> 60
        >> Quiet("no traffic") << Idle
        >> 10
        >> Traffic("1 request moved") << Active
        >> 60
        >> Quiet("no traffic") << Idle
        >> 300
        >> IdleElapsed("idle for all of idleAfter") << Draining
        >> 1
        >> Drained("idle for all of idleAfter") << ScaledToZero
    )  # fmt: skip
    assert talk.record == Record(ScaledToZero, 533.5, "idle for all of idleAfter", 3, "127.64.0.7:18001")


def test_demand_while_draining_leads_to_active() -> None:
    assert Talk(Idle) >> IdleElapsed() << Draining >> DemandSeen("a client is waiting") << Active


def test_unknown_usage_ends_idle_and_draining_only() -> None:
    assert Talk(Idle) >> TrafficUnknown("Envoy b is missing") << Active
    assert Talk(Draining) >> TrafficUnknown("no Envoy is connected") << Active
    assert Talk(Active) >> TrafficUnknown("no Envoy is connected") << Active


def test_stalled_wake_continues_with_reason() -> None:
    talk = Talk(ScaledToZero)
    assert talk >> DemandSeen() << Waking >> 5 >> WakeStalled("exit code 1") << Waking
    assert talk.record.stalled == "exit code 1"
    assert talk >> 55 >> WakeTimedOut("it is not ready", wanted=True) << Waking
    assert talk.record.stalled == "it is not ready"
    assert talk.record.since == 100.0
    assert talk >> 60 >> Ready() << Active
    assert talk.record.stalled is None


def test_timed_out_wake_without_client_ends_asleep() -> None:
    assert Talk(ScaledToZero) >> DemandSeen() << Waking >> 60 >> WakeTimedOut(wanted=False) << ScaledToZero


def test_ready_while_asleep_counts_after_zero_only() -> None:
    talk = Talk(Draining)
    assert talk >> Drained() << ScaledToZero >> Ready("the old pod, still there") << ScaledToZero
    assert (
        talk
        >> ReplicasAtZero("confirmed")
        << ScaledToZero
        >> Ready("scaled up by another controller or user")
        << Active
    )


def test_zero_while_waking_allows_another_wake() -> None:
    assert Talk(Waking) >> ReplicasAtZero() << ScaledToZero >> DemandSeen("a client is waiting") << Waking


def test_lost_endpoints_lead_to_waking_until_ready() -> None:
    assert Talk(Active) >> EndpointsLost("exit code 139") << Waking >> Ready() << Active


def test_rollout_of_service_in_use_holds_until_ready() -> None:
    assert Talk(Active) >> RolloutStarted("new connections wait") << Waking >> Ready() << Active


def test_sleep_command_drains_first() -> None:
    assert Talk(Active) >> SleepCommanded("requested by a user") << Draining >> Drained() << ScaledToZero
    assert Talk(Active) >> SleepCommanded() << Draining >> DrainTimedOut("1 request in flight") << Active


def test_paused_service_stays_idle_until_sleep_command() -> None:
    assert Talk(Idle) >> IdleElapsed(paused=True) << Idle >> SleepCommanded() << Draining >> WakeCommanded() << Active
