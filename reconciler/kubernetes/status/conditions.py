"""Conditions and status of a ScaledService, computed from everything that is known about it. Pure.

`Ready` is True while the service is awake, or asleep and able to wake. It is False during a wake, and while its
configuration or target has a problem. `Awake` is True while connections go directly to the pods. `Stalled` is True
while a wake makes no progress. All follow the API conventions, so that tools that compute health from conditions
(kstatus) accept a sleeping service.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from reconciler.core.reasons import Diagnosis, Problem, Reason
from reconciler.core.record import AWAKE_STATES, Record, State
from reconciler.kubernetes.config.capture import CaptureStatus
from reconciler.kubernetes.types.objects import Condition
from reconciler.kubernetes.types.scaled_service import CAPTURED, ScaledServiceStatus

READY, AWAKE, STALLED = "Ready", "Awake", "Stalled"
AS_EXPECTED = "AsExpected"
NOT_SEEN_YET = "NotSeenYet"
TARGET_UNAVAILABLE = "TargetUnavailable"
MAX_MESSAGE_LENGTH = 4096
"""In characters. The schema allows 32,768; the API server would reject the whole status for a longer message."""


@dataclass(frozen=True, slots=True)
class StatusInputs:
    """Everything that the status of one service is computed from."""

    record: Record | None = None
    problems: tuple[Problem, ...] = ()
    diagnosis: Diagnosis | None = None
    """Reason why the target cannot be observed or scaled, or does not become ready."""
    command: str = ""
    """Last executed command, as in the annotation."""
    capture: CaptureStatus | None = None
    """The capture of its Service; None while it is not reported: the stored one stays."""
    current: bool = False
    """True once anything was reported by this process; before, the stored status stays."""


def compute_status(
    inputs: StatusInputs, before: ScaledServiceStatus, now: float, target: str = "", generation: int = 0
) -> ScaledServiceStatus:
    """Return the new status; unchanged parts are those of `before`.

    `target` is the scaled object, and `generation` that of the ScaledService that has the problems.
    """
    generation = generation or max(0, before.observed_generation)
    capture = inputs.capture
    found = (_ready(inputs), _awake(inputs.record), _stalled(inputs.record), *_captured(capture))
    replaced = {one.type for one in found} | ({CAPTURED} if capture else set())
    others = tuple(one for one in before.conditions if one.type not in replaced)
    conditions = tuple(_timed(one, before.conditions, generation, now) for one in found)
    after = msgspec.structs.replace(
        before,
        target=target,
        observed_generation=generation,
        observed_command=inputs.command or before.observed_command,
        capture_port=before.capture_port if capture is None else capture.port,
        conditions=(*conditions, *others),
    )
    record = inputs.record
    if record is None:
        return after
    return msgspec.structs.replace(
        after,
        state=record.state.value,
        since=datetime.fromtimestamp(record.since, UTC),
        reason=record.reason,
        replicas=record.replicas,
        hold_address=record.hold_address,
        stalled=record.stalled,
        zeroed=record.zeroed,
    )


def record_of(status: ScaledServiceStatus) -> Record | None:
    """Return the record in a status, or None if it has no complete one."""
    if status.state not in State.__members__ or status.since is None or not status.hold_address:
        return None
    return Record(
        State(status.state),
        status.since.timestamp(),
        status.reason,
        max(1, status.replicas),
        status.hold_address,
        status.stalled,
        status.zeroed,
    )


def status_patch(before: ScaledServiceStatus, after: ScaledServiceStatus) -> dict[str, Any]:
    """Return the JSON merge patch (RFC 7386) from one status to another."""
    if before == after:
        return {}
    old, new = msgspec.to_builtins(before), msgspec.to_builtins(after)
    changed = {name: value for name, value in new.items() if old.get(name) != value}
    if before.conditions == after.conditions:
        changed.pop("conditions", None)
    elif "conditions" in changed:
        # The schema requires a message, even an empty one.
        changed["conditions"] = [{"message": "", **msgspec.to_builtins(one)} for one in after.conditions]
    return changed | dict.fromkeys(old.keys() - new.keys())


def condition_reason(diagnosis: Diagnosis, otherwise: str) -> str:
    """Return the code of a diagnosis, or `otherwise` if it has none of its own."""
    return otherwise if diagnosis.code is Reason.OTHER else diagnosis.code


def _ready(inputs: StatusInputs) -> Condition:
    record = inputs.record
    if problems := [problem for problem in inputs.problems if not problem.harmless]:
        return Condition(READY, "False", problems[0].reason, "; ".join(str(problem) for problem in problems))
    if diagnosis := inputs.diagnosis:
        return Condition(READY, "False", condition_reason(diagnosis, TARGET_UNAVAILABLE), diagnosis.message)
    if record is None:
        return Condition(READY, "False", NOT_SEEN_YET, "not observed yet")
    if record.stalled:
        return _stall(READY, "False", record.stalled)
    return Condition(READY, "False" if record.state is State.Waking else "True", record.state.value, record.reason)


def _awake(record: Record | None) -> Condition:
    if record is None:
        return Condition(AWAKE, "Unknown", NOT_SEEN_YET, "not observed yet")
    return Condition(AWAKE, "True" if record.state in AWAKE_STATES else "False", record.state.value, record.reason)


def _stalled(record: Record | None) -> Condition:
    if record and record.stalled:
        return _stall(STALLED, "True", record.stalled)
    return Condition(STALLED, "False", AS_EXPECTED, "")


def _captured(capture: CaptureStatus | None) -> tuple[Condition, ...]:
    if capture is None or not capture.reason:
        return ()
    return (Condition(CAPTURED, "True" if capture.is_captured else "False", capture.reason, capture.message),)


def _stall(type: str, status: str, stalled: str) -> Condition:
    """Return the condition of a stalled wake. Its message does not repeat its reason: tools show both."""
    diagnosis = Diagnosis.parse(stalled)
    return Condition(type, status, condition_reason(diagnosis, STALLED), diagnosis.message)


def _timed(found: Condition, before: Sequence[Condition], generation: int, now: float) -> Condition:
    was = next((one for one in before if one.type == found.type), None)
    lasts = was is not None and was.status == found.status and was.last_transition_time is not None
    at = was.last_transition_time if was and lasts else datetime.fromtimestamp(int(now), UTC)
    message = found.message
    if len(message) > MAX_MESSAGE_LENGTH:
        message = f"{message[: MAX_MESSAGE_LENGTH - 1]}…"
    return msgspec.structs.replace(found, message=message, last_transition_time=at, observed_generation=generation)
