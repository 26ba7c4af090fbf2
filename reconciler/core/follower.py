"""Records on replicas that follow a leader. Pure; counterpart: `judge.py`.

The leader's records are authoritative. A follower steps its own copy only towards being awake, so that a wake needs no
leader; the leader's next record replaces that step. The leader fences a record before it decides on evidence: a fenced
record does not change until the leader's next record, so that a follower's acknowledgement still holds when the leader
acts on it.
"""

from __future__ import annotations

from dataclasses import replace

from reconciler.core import events
from reconciler.core.events import Event
from reconciler.core.judge import Observed, waking
from reconciler.core.record import Record, State


def fenced(record: Record, seen: Observed) -> bool:
    """Return whether the leader may decide to scale this service to zero, so that followers must not step its record.

    A wake may end this way only if no client is waiting; followers continue a wake with a waiting client.
    """
    return record.state is State.Draining or (record.state is State.Waking and seen.held == 0)


def follower_event(record: Record, seen: Observed, fence: bool) -> Event | None:
    """Return the next event for a follower's copy of a record, or None."""
    match record.state:
        case State.ScaledToZero:
            return events.DemandSeen("a client is waiting") if seen.held else None
        case State.Waking:
            event = waking(record, seen)
            return None if fence and isinstance(event, events.Ready) else event
        case State.Active | State.Idle:
            # Only the leader reports zero replicas, except while a client is held because of them.
            if (seen.replicas or (seen.replicas == 0 and seen.held)) and not seen.endpoints:
                return events.EndpointsLost(str(seen.diagnosis or "no endpoint can be reached"))
            return None
        case State.Draining:
            return events.DemandSeen("a client is waiting, and there is no leader") if seen.held and not fence else None


def follows_deadline(record: Record, event: Event) -> bool:
    """Return whether a follower applies the event of a deadline.

    It applies only the timeout of a wake that has a waiting client and no diagnosis; only the leader diagnoses.
    """
    return isinstance(event, events.WakeTimedOut) and event.wanted and not record.stalled


def on_elected(record: Record, replicas: int | None, since: float) -> Record:
    """Return the record of a previous leader as the leader since `since` (seconds since the epoch) adopts it.

    A service that was draining, or whose sleep is not confirmed by zero replicas, is Active.
    """
    record = replace(record, since=min(record.since, since))  # the previous leader's clock may be ahead
    if record.state is State.Draining:
        return _active(record, since, "its drain ended with its leader")
    if record.state is State.ScaledToZero and not record.zeroed:
        if replicas == 0:
            return replace(record, zeroed=True)
        return _active(record, since, "its sleep was not confirmed")
    return record


def on_demoted(record: Record, now: float) -> Record:
    """Return the record of a former leader: a drain ends, so that no client is held because of it."""
    return _active(record, now, "its drain ended with its leader") if record.state is State.Draining else record


def _active(record: Record, since: float, reason: str) -> Record:
    return replace(record, state=State.Active, since=since, reason=reason, stalled=None, zeroed=False)


def in_force(record: Record, shared: Record, fence: bool, seen: Observed) -> str | None:
    """Return why the leader's record `shared` is not in force at a follower, for people; None if it is and stays so."""
    if record.state is not shared.state:
        return f"it is {record.state}"
    if record.state is State.Waking and not fence:
        return "it wakes"
    return None if seen.route_acked_at is not None else seen.waiting_for
