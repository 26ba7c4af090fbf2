"""Conditions and status of a ScaledService, computed from everything that is known about it. Pure.

`Ready` is what `kubectl get` shows: True while the service is awake and nothing is wrong with what was asked. `Stalled`
is True while a wake does not get on. Both follow the conventions for conditions: a reason of one word, a message for
people, and a time that changes only when the condition's status does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from reconciler.core.reasons import Problem
from reconciler.core.record import Record, State
from reconciler.kubernetes.types.objects import Condition
from reconciler.kubernetes.types.scaled_service import ScaledServiceStatus

READY, STALLED = "Ready", "Stalled"
AWAKE = (State.Active, State.Idle)
AS_EXPECTED = "AsExpected"
NOT_SEEN_YET = "NotSeenYet"
TARGET_UNAVAILABLE = "TargetUnavailable"
LONGEST_MESSAGE = 4096
"""In characters, of which the schema takes 32,768; for one that is longer nothing of the status would be written."""
_FIRST_WORD = re.compile(r"([A-Z][A-Za-z0-9]+)(?=:| \(|$)")


@dataclass(frozen=True, slots=True)
class StatusInputs:
    """All that is known of one service that its status tells."""

    record: Record | None = None
    problems: tuple[Problem, ...] = ()
    generation: int = 0
    """Of the object that the problems are about."""
    trouble: str | None = None
    """Why the target cannot be seen or scaled, or does not get ready."""
    command: str = ""
    """The command that was carried out last, as the annotation says it."""
    heard: bool = False
    """Whether it tells of the present; before, what the status says of it stands."""


NO_INPUTS = StatusInputs()


def compute_status(
    standing: StatusInputs, before: ScaledServiceStatus, now: float, target: str = ""
) -> ScaledServiceStatus:
    """The status to be, which differs from `before` only where something changed. `target` is what is scaled."""
    generation = standing.generation or before.observed_generation
    found = (_ready(standing), _stalled(standing.record))
    others = tuple(one for one in before.conditions if one.type not in (READY, STALLED))
    conditions = tuple(_timed(one, before.conditions, generation, now) for one in found)
    kept = msgspec.structs.replace(
        before,
        target=target,
        observed_generation=generation,
        observed_command=standing.command or before.observed_command,
        conditions=(*conditions, *others),
    )
    return _with_record(kept, standing.record) if standing.record else kept


def record_of(status: ScaledServiceStatus) -> Record | None:
    """The record that a status tells; None when it tells of none, or not of a whole one."""
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
    """The JSON merge patch (RFC 7386) from one status to the other: what changed, None for what is no more."""
    if before == after:
        return {}
    old, new = msgspec.to_builtins(before), msgspec.to_builtins(after)
    changed = {name: value for name, value in new.items() if old.get(name) != value}
    if before.conditions == after.conditions:
        changed.pop("conditions", None)
    elif "conditions" in changed:
        changed["conditions"] = [_whole(one) for one in after.conditions]
    return changed | dict.fromkeys(old.keys() - new.keys())


def word(text: str, otherwise: str) -> str:
    """The reason that a message begins with, as in `ImagePullBackOff: no such image`; `otherwise` when with none."""
    found = _FIRST_WORD.match(text)
    return found[1] if found else otherwise


def _with_record(before: ScaledServiceStatus, record: Record) -> ScaledServiceStatus:
    return msgspec.structs.replace(
        before,
        state=record.state.value,
        since=datetime.fromtimestamp(record.since, UTC),
        reason=record.reason,
        replicas=record.replicas,
        hold_address=record.hold_address,
        stalled=record.stalled,
        zeroed=record.zeroed,
    )


def _ready(standing: StatusInputs) -> Condition:
    record = standing.record
    if problems := [problem for problem in standing.problems if not problem.harmless]:
        return Condition(READY, "False", problems[0].reason, "; ".join(str(problem) for problem in problems))
    if standing.trouble:
        return Condition(READY, "False", word(standing.trouble, TARGET_UNAVAILABLE), standing.trouble)
    if record is None:
        return Condition(READY, "False", NOT_SEEN_YET, "whether it runs is not known yet")
    awake = "True" if record.state in AWAKE else "False"
    if record.stalled:
        return Condition(READY, awake, word(record.stalled, STALLED), record.stalled)
    return Condition(READY, awake, record.state.value, record.reason)


def _stalled(record: Record | None) -> Condition:
    if record and record.stalled:
        return Condition(STALLED, "True", word(record.stalled, STALLED), record.stalled)
    return Condition(STALLED, "False", AS_EXPECTED, "")


def _timed(found: Condition, before: Sequence[Condition], generation: int, now: float) -> Condition:
    was = next((one for one in before if one.type == found.type), None)
    lasts = was is not None and was.status == found.status and was.last_transition_time is not None
    at = was.last_transition_time if was and lasts else datetime.fromtimestamp(int(now), UTC)
    message = found.message if len(found.message) <= LONGEST_MESSAGE else f"{found.message[: LONGEST_MESSAGE - 1]}…"
    return msgspec.structs.replace(found, message=message, last_transition_time=at, observed_generation=generation)


def _whole(condition: Condition) -> dict[str, Any]:
    """With its message though it is empty: the convention requires one."""
    return {"message": "", **msgspec.to_builtins(condition)}
