"""Conditions and columns for `kubectl get ssvc` and `kubectl wait`."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import msgspec
import pytest

from reconciler.core.reasons import Diagnosis, Problem, Reason
from reconciler.core.record import Record, State
from reconciler.kubernetes.status import conditions
from reconciler.kubernetes.status.conditions import StatusInputs
from reconciler.kubernetes.types.objects import Condition
from reconciler.kubernetes.types.scaled_service import ScaledServiceStatus

SINCE = 1_795_000_000.123456
ASLEEP = Record(State.ScaledToZero, SINCE, "idle for all of idleAfter", 3, "127.64.0.1:18001", zeroed=True)
STALLED = Record(State.Waking, SINCE, "a client is waiting", 1, "127.64.0.2:18001", "ImagePullBackOff: no such image")
ACTIVE = Record(State.Active, SINCE, "reachable", 2, "127.64.0.3:18001")
NEW = ScaledServiceStatus()
NOW = SINCE + 60


BAD = Problem(Reason.BAD_SPEC, "spec.port", "there is no port 81", "write 80 or 443")
TAKEN = Problem(Reason.HOST_TAKEN, "spec.hosts", "shop.example.com is that of shop/older", "take another")
HARMLESS = Problem(Reason.BAD_ANNOTATION, "zenvoy.dev/port", "it is not read", "write it in the spec", harmless=True)


def condition(status: ScaledServiceStatus, type: str) -> tuple[str, str, str]:
    found = next(one for one in status.conditions if one.type == type)
    return found.status, found.reason, found.message


@pytest.mark.parametrize("record", [ASLEEP, STALLED, ACTIVE], ids=lambda record: record.state)
def test_record_of_status_round_trips(record: Record) -> None:
    written = conditions.compute_status(StatusInputs(record), NEW, NOW)
    wire = msgspec.json.encode(written)
    assert conditions.record_of(msgspec.json.decode(wire, type=ScaledServiceStatus)) == record


@pytest.mark.parametrize(
    "status",
    [
        NEW,
        ScaledServiceStatus(state="Active", hold_address="a:1"),
        ScaledServiceStatus(state="Active", since=datetime.now(UTC)),
        ScaledServiceStatus(state="Sleepy", since=datetime.now(UTC), hold_address="a:1"),
    ],
    ids=["new", "since unknown", "no hold address", "no such state"],
)
def test_record_of_incomplete_status_is_none(status: ScaledServiceStatus) -> None:
    assert conditions.record_of(status) is None


@pytest.mark.parametrize(
    ("standing", "ready", "stalled"),
    [
        (StatusInputs(ACTIVE), ("True", "Active", "reachable"), ("False", "AsExpected", "")),
        (
            StatusInputs(Record(State.Idle, SINCE, "no traffic", 2, "a:1")),
            ("True", "Idle", "no traffic"),
            ("False", "AsExpected", ""),
        ),
        (
            StatusInputs(Record(State.Draining, SINCE, "idle for all of idleAfter", 2, "a:1")),
            ("True", "Draining", "idle for all of idleAfter"),
            ("False", "AsExpected", ""),
        ),
        (
            StatusInputs(ASLEEP),
            ("True", "ScaledToZero", "idle for all of idleAfter"),
            ("False", "AsExpected", ""),
        ),
        (
            StatusInputs(Record(State.Waking, SINCE, "a client is waiting", 2, "a:1")),
            ("False", "Waking", "a client is waiting"),
            ("False", "AsExpected", ""),
        ),
        (
            StatusInputs(STALLED),
            ("False", "ImagePullBackOff", "no such image"),
            ("True", "ImagePullBackOff", "no such image"),
        ),
        (
            StatusInputs(Record(State.Waking, SINCE, "", 1, "a:1", "TimedOut: not ready, and no reason is reported")),
            ("False", "TimedOut", "not ready, and no reason is reported"),
            ("True", "TimedOut", "not ready, and no reason is reported"),
        ),
        (
            StatusInputs(None, diagnosis=Diagnosis(Reason.OTHER, "there is no Deployment web")),
            ("False", "TargetUnavailable", "there is no Deployment web"),
            ("False", "AsExpected", ""),
        ),
        (
            StatusInputs(ACTIVE, diagnosis=Diagnosis(Reason.TARGET_NOT_FOUND, "there is no Deployment web")),
            ("False", "TargetNotFound", "there is no Deployment web"),
            ("False", "AsExpected", ""),
        ),
        (StatusInputs(), ("False", "NotSeenYet", "not observed yet"), ("False", "AsExpected", "")),
        (
            StatusInputs(ACTIVE, (HARMLESS, BAD, TAKEN)),
            ("False", "BadSpec", f"{BAD}; {TAKEN}"),
            ("False", "AsExpected", ""),
        ),
    ],
    ids=[
        "active",
        "idle",
        "draining",
        "asleep",
        "waking",
        "stalled",
        "timed out",
        "no target",
        "target gone",
        "new",
        "problems",
    ],
)
def test_conditions_follow_the_inputs(
    standing: StatusInputs, ready: tuple[str, str, str], stalled: tuple[str, str, str]
) -> None:
    found = conditions.compute_status(standing, NEW, NOW)
    assert (condition(found, "Ready"), condition(found, "Stalled")) == (ready, stalled)


@pytest.mark.parametrize(
    ("record", "awake"),
    [
        (ACTIVE, ("True", "Active", "reachable")),
        (Record(State.Idle, SINCE, "no traffic", 2, "a:1"), ("True", "Idle", "no traffic")),
        (Record(State.Draining, SINCE, "idle", 2, "a:1"), ("False", "Draining", "idle")),
        (ASLEEP, ("False", "ScaledToZero", "idle for all of idleAfter")),
        (STALLED, ("False", "Waking", "a client is waiting")),
        (None, ("Unknown", "NotSeenYet", "not observed yet")),
    ],
    ids=["active", "idle", "draining", "asleep", "waking", "new"],
)
def test_condition_awake_follows_the_state(record: Record | None, awake: tuple[str, str, str]) -> None:
    problems = (BAD,) if record is ACTIVE else ()  # a mistake in the spec does not put a service to sleep
    assert condition(conditions.compute_status(StatusInputs(record, problems), NEW, NOW), "Awake") == awake


def test_condition_time_changes_with_status_only() -> None:
    first = conditions.compute_status(StatusInputs(ACTIVE), NEW, NOW, generation=1)
    idle = Record(State.Idle, SINCE + 5, "no traffic", 2, "a:1")
    second = conditions.compute_status(StatusInputs(idle), first, NOW + 100, generation=2)
    third = conditions.compute_status(StatusInputs(ASLEEP), second, NOW + 200, generation=2)
    times = [[one.last_transition_time for one in status.conditions] for status in (first, second, third)]
    now, later = datetime.fromtimestamp(int(NOW), UTC), datetime.fromtimestamp(int(NOW + 200), UTC)
    assert times == [[now, now, now], [now, now, now], [now, later, now]]
    assert [status.observed_generation for status in (first, second, third)] == [1, 2, 2]
    assert [one.observed_generation for one in third.conditions] == [2, 2, 2]


def test_status_unknown_inputs_keep_stored_values() -> None:
    before = conditions.compute_status(StatusInputs(ASLEEP, command="wake@1"), NEW, NOW, generation=7)
    after = conditions.compute_status(StatusInputs(None, (BAD,)), before, NOW + 1)
    assert conditions.record_of(after) == ASLEEP
    assert (after.observed_generation, after.observed_command) == (7, "wake@1")


def test_conditions_of_others_are_kept() -> None:
    other = Condition("Audited", "True", "Yes", "", datetime.fromtimestamp(5, UTC))
    before = ScaledServiceStatus(conditions=(other,))
    after = conditions.compute_status(StatusInputs(ASLEEP), before, NOW)
    assert [one.type for one in after.conditions] == ["Ready", "Awake", "Stalled", "Audited"]
    assert conditions.status_patch(before, after)["conditions"][3] == {
        "type": "Audited",
        "status": "True",
        "reason": "Yes",
        "message": "",
        "lastTransitionTime": "1970-01-01T00:00:05Z",
    }


def test_status_patch_has_changes_only() -> None:
    before = conditions.compute_status(StatusInputs(STALLED), NEW, NOW, generation=1)
    same = conditions.compute_status(StatusInputs(STALLED), before, NOW + 9, generation=1)
    assert conditions.status_patch(before, same) == {}
    more = conditions.compute_status(StatusInputs(replace(STALLED, replicas=5)), before, NOW + 9, generation=1)
    assert conditions.status_patch(before, more) == {"replicas": 5}
    awake = Record(State.Active, SINCE + 9, "reachable", 1, STALLED.hold_address)
    changed = conditions.status_patch(
        before, conditions.compute_status(StatusInputs(awake), before, NOW + 9, generation=1)
    )
    assert changed.pop("conditions")[0]["reason"] == "Active"
    assert changed == {
        "state": "Active",
        "since": "2026-11-18T11:06:49.123456Z",
        "reason": "reachable",
        "stalled": None,
    }


def test_condition_long_message_is_shortened() -> None:
    long = Problem(
        Reason.BAD_ANNOTATION, "metadata.annotations[zenvoy.dev/port]", f"{'8' * 100_000} is no port", "write 80"
    )
    written = conditions.compute_status(StatusInputs(ACTIVE, problems=(long,)), NEW, NOW)
    message = condition(written, "Ready")[2]
    assert message.startswith("metadata.annotations[zenvoy.dev/port]: 888") and message.endswith("8…")
    assert len(message) == conditions.MAX_MESSAGE_LENGTH
    again = conditions.compute_status(StatusInputs(ACTIVE, problems=(long,)), written, NOW + 9)
    assert conditions.status_patch(written, again) == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ImagePullBackOff: no such image", "ImagePullBackOff"),
        ("OOMKilled: container web of pod web-1", "OOMKilled"),
        ("Deployment web is gone", "Other"),
        ("there is no Deployment", "Other"),
        ("", "Other"),
    ],
)
def test_condition_reason_is_the_code_of_the_diagnosis(text: str, expected: str) -> None:
    assert conditions.condition_reason(Diagnosis.parse(text), "Other") == expected
