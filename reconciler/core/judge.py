"""Derivation of events from observations: level-triggered, so that a lost message or a restart loses nothing.

`judge` compares a service's record with its observation and returns the next event, or None if they agree. Calling it
after each `step` until it returns None brings any record up to date. No I/O, no clock. Counterpart: `machine.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.core import busy, events
from reconciler.core.busy import BusyAnswer, BusyUntil
from reconciler.core.events import Event
from reconciler.core.reasons import UNEXPLAINED, Blocker, Diagnosis, Reason
from reconciler.core.record import Record, State
from reconciler.core.spec import Spec, UsageUnit
from reconciler.core.text import pluralize
from reconciler.core.traffic import ServiceUsage, Usage, is_without_bytes

SETTLE_SECONDS = 0.1
"""Delay after an acknowledgement before a sample counts: Envoy's main thread acknowledges, its workers follow."""
HOLDER_MISSING = Blocker(Reason.HOLDER_MISSING, "a holder is not connected")


@dataclass(frozen=True, slots=True)
class Observed:
    """The observation of one service at this moment; never persisted."""

    replicas: int | None = None
    """Replicas that exist or that their owner requests; None while unknown."""
    endpoints: tuple[str, ...] = ()
    """`ip:port` of every endpoint that can be dialed now."""
    diagnosis: Diagnosis | None = None
    """The reason why it does not become ready; None while no fault is known."""
    held: int | None = None
    """Held connections in all holders; None while a holder is missing."""
    relayed: int | None = None
    """Relayed connections in all holders; None while a holder is missing."""
    traffic: ServiceUsage | None = None
    """The latest usage; None before the first."""
    route_acked_at: float | None = None
    """When the last Envoy and the last holder acknowledged the present route; None until then."""
    waiting_for: str = "no Envoy is connected"
    """The Envoys or holders that have not acknowledged the route, for people."""
    silent_since: float | None = None
    """Start of the period without traffic, by samples; None if the latest sample has traffic or is unknown."""
    sleep_commanded_at: float | None = None
    """Time of the last event that asked for a drain; usage before it does not count for that drain."""
    withdrawn: bool = False
    """True if endpoints exist and every one is withdrawn or terminating."""
    busy: BusyAnswer | None = None
    """The latest answer of the busy check; None before the first."""
    busy_until: BusyUntil | None = None
    """The time until which the application calls itself busy; None if it does not."""
    end: str | None = None
    """The reason why earlier processes have ended; None: unknown, or they have not."""


def judge(record: Record, spec: Spec, seen: Observed, now: float, stale_after: float) -> Event | None:
    """Return the next event for this record, or None if record and observation agree.

    `now` is seconds since the epoch; usage older than `stale_after` seconds is unknown.
    """
    if spec.departing and record.state in (State.ScaledToZero, State.Draining):
        return events.DeletionStarted("it is being deleted")
    match record.state:
        case State.ScaledToZero:
            return _asleep(record, spec, seen)
        case State.Waking:
            return waking(record, seen)
        case State.Active:
            return _lost(seen) or _active(record, spec, seen, now, stale_after)
        case State.Idle:
            return _lost(seen) or _idle(record, spec, seen, now, stale_after)
        case State.Draining:
            return _draining(record, spec, seen, now, stale_after)


def due(record: Record, spec: Spec, seen: Observed, event: type[Event], now: float) -> Event | None:
    """Return the event of a passed deadline, filled from the observation; None if a busy check decides instead."""
    if event is events.WakeTimedOut:
        # A negative answer needs the evidence of a drain.
        has_client = bool(seen.held or seen.relayed) or undrained(record, spec, seen) is not None
        wanted = spec.departing or spec.paused or has_client or _works(record, spec, seen, now)
        return events.WakeTimedOut(str(seen.diagnosis or UNEXPLAINED), wanted=wanted)
    if event is events.DrainTimedOut:
        return events.DrainTimedOut(str(drain_blocker(record, spec, seen) or "the drain took too long"))
    return None if spec.has_busy_check else _idle_elapsed(spec)


def is_question_due(record: Record, spec: Spec, seen: Observed, now: float) -> bool:
    """Return whether the next step of a service with a busy check depends on its answer from now."""
    answer = seen.busy
    asked_at = answer.asked_at if answer else 0.0
    match record.state:
        case State.Idle:
            idle_at = record.since + spec.idle_after
            return not (spec.paused or spec.departing) and asked_at < idle_at <= now
        case State.Active:
            is_kept = answer is not None and answer.blocker is not None
            return is_kept and _is_quiet(record, seen) and now >= asked_at + busy.ask_again_after(spec)
        case State.Draining:
            return _is_acked(record, seen) and undrained(record, spec, seen) is None and not _is_answered(seen)
    return False


def route_blocker(seen: Observed) -> Blocker:
    """Return the drain blocker of a route that is not acknowledged."""
    return Blocker(Reason.ROUTE_NOT_ACKNOWLEDGED, f"the route is not acknowledged: {seen.waiting_for}")


def drain_blocker(record: Record, spec: Spec, seen: Observed) -> Blocker | None:
    """Return the drain blocker of a draining service, or None if it may be scaled to zero."""
    if blocker := undrained(record, spec, seen):
        return blocker
    return busy.NOT_ANSWERED if spec.has_busy_check and not _is_answered(seen) else None


def undrained(record: Record, spec: Spec, seen: Observed) -> Blocker | None:
    """Return why clients may still use a service, or None if none does."""
    by = spec.idle_by
    if seen.held is None or seen.relayed is None:
        return HOLDER_MISSING
    if seen.relayed and by is not UsageUnit.BYTES:
        relayed = f"{pluralize(seen.relayed, 'connection')} {'is' if seen.relayed == 1 else 'are'} relayed"
        return Blocker(Reason.CONNECTIONS_RELAYED, relayed)
    if seen.route_acked_at is None:
        return route_blocker(seen)
    if seen.traffic is None or seen.traffic.usage is Usage.UNKNOWN:
        if seen.traffic is not None and seen.traffic.starting:
            return Blocker(Reason.NO_COMPLETE_SAMPLE, "there is no complete sample yet")
        return Blocker(Reason.USAGE_UNKNOWN, "usage is unknown")
    if seen.traffic.taken_at < max(seen.route_acked_at + SETTLE_SECONDS, record.since):
        return Blocker(Reason.SAMPLE_TOO_OLD, "no sample since the route was acknowledged")
    if seen.traffic.in_flight and not (by is UsageUnit.BYTES and is_without_bytes(spec, seen.traffic)):
        return Blocker(Reason.IN_FLIGHT, f"{pluralize(seen.traffic.in_flight, by.one)} in flight")
    # One window without a byte does not prove that the service computes nothing for a connected client. All of
    # `idleAfter` without a byte is accepted as proof; a commanded drain has time for only a part of it.
    silence = min(spec.idle_after, spec.drain_timeout / 2) if _was_commanded(record, seen) else spec.idle_after
    silent_for = 0.0 if seen.silent_since is None else seen.traffic.taken_at - seen.silent_since
    if by is UsageUnit.BYTES and seen.traffic.open and silent_for < silence:
        return Blocker(Reason.NOT_SILENT, f"{seen.traffic.open} open, and not yet silent for {silence:g} s")
    return None


def _was_commanded(record: Record, seen: Observed) -> bool:
    """Return whether the present drain was commanded, rather than caused by idleness."""
    return seen.sleep_commanded_at is not None and seen.sleep_commanded_at >= record.since


def _works(record: Record, spec: Spec, seen: Observed, now: float) -> bool:
    """Return whether a waking service was at work when it lost its endpoints: a program at work may be unready."""
    asked_from = record.since - busy.ask_again_after(spec) - busy.CHECK_SECONDS
    answer = None if seen.end else seen.busy  # the work has ended with the process
    return busy.blocker_of(spec, answer, seen.busy_until, now, asked_from) is not None


def _asleep(record: Record, spec: Spec, seen: Observed) -> Event | None:
    if seen.held:
        return events.DemandSeen(waiting_clients(seen.held))
    traffic = None if spec.waits_for_bytes else seen.traffic
    if traffic and traffic.window_start >= record.since and (traffic.arrived or traffic.moved or traffic.in_flight):
        return events.DemandSeen(f"Envoy reported traffic: {traffic.seen}")
    if seen.replicas == 0 and not record.zeroed:
        return events.ReplicasAtZero("confirmed")
    if record.zeroed and seen.replicas and seen.endpoints:
        return events.Ready("scaled up by another controller or user")
    return None


def waking(record: Record, seen: Observed) -> Event | None:
    """Return the event of a waking service from the status of its workload."""
    if seen.endpoints and seen.replicas != 0:
        return events.Ready("reachable")
    if seen.diagnosis and (stalled := str(seen.diagnosis)) != record.stalled:
        return events.WakeStalled(stalled)
    return None


def _lost(seen: Observed) -> Event | None:
    if seen.replicas == 0:
        return _at_zero(seen)
    if seen.withdrawn:
        return events.RolloutStarted("new connections wait for the new program")
    if seen.replicas and not seen.endpoints:
        return events.EndpointsLost(str(seen.diagnosis or seen.end or "no endpoint can be reached"))
    return None


def _at_zero(seen: Observed) -> Event:
    return events.ReplicasAtZero(seen.end or "scaled to zero by another controller or user")


def _active(record: Record, spec: Spec, seen: Observed, now: float, stale_after: float) -> Event | None:
    if seen.held or _unknown(record, seen, now, stale_after) or not _is_quiet(record, seen):
        return None
    if event := _busy(spec, seen, now):
        return event if record.reason != event.reason else None
    return events.Quiet("no traffic")


def _is_quiet(record: Record, seen: Observed) -> bool:
    """Return whether a sample showed no traffic since the state was entered."""
    traffic = seen.traffic
    return traffic is not None and traffic.usage is Usage.QUIET and traffic.taken_at > record.since


def _busy(spec: Spec, seen: Observed, now: float, asked_from: float = 0.0) -> Event | None:
    """Return the event of a service that works without a client, or None."""
    blocker = busy.blocker_of(spec, seen.busy, seen.busy_until, now, asked_from)
    return events.BusySeen(f"{blocker.code}: {blocker.message}") if blocker else None


def _is_acked(record: Record, seen: Observed) -> bool:
    """Return whether the route of a drain is acknowledged.

    An acknowledgement from before the drain is for the route to the pods: the observation may precede the new route.
    """
    return seen.route_acked_at is not None and seen.route_acked_at >= record.since


def _is_answered(seen: Observed) -> bool:
    """Return whether the busy check was asked after the route of a drain was in force."""
    acked, answer = seen.route_acked_at, seen.busy
    return acked is not None and answer is not None and answer.asked_at >= acked + SETTLE_SECONDS


def _idle_elapsed(spec: Spec) -> Event:
    return events.IdleElapsed("idle for all of idleAfter", paused=spec.paused)


def _idle(record: Record, spec: Spec, seen: Observed, now: float, stale_after: float) -> Event | None:
    if seen.held:
        return events.DemandSeen(waiting_clients(seen.held))
    if unknown := _unknown(record, seen, now, stale_after):
        return unknown
    if seen.traffic is None:
        return events.TrafficUnknown("there is no recent sample")
    if seen.traffic.usage is Usage.TRAFFIC:
        return events.Traffic(seen.traffic.reason)
    if event := _busy(spec, seen, now):
        return event
    is_idle = spec.has_busy_check and seen.busy is not None and seen.busy.asked_at >= record.since + spec.idle_after
    return _idle_elapsed(spec) if is_idle and not (spec.paused or spec.departing) else None


def _draining(record: Record, spec: Spec, seen: Observed, now: float, stale_after: float) -> Event | None:
    if seen.replicas == 0:
        return _at_zero(seen)
    if seen.held:
        return events.DemandSeen(waiting_clients(seen.held))
    if unknown := _unknown(record, seen, now, stale_after, patient=_was_commanded(record, seen)):
        return unknown
    # Work that was in flight before the drain may finish within `drainTimeout`; new work makes the service active.
    traffic = seen.traffic
    if traffic and traffic.moved and not is_without_bytes(spec, traffic) and _is_new_use(record, seen, traffic):
        return events.Traffic(traffic.reason)
    if event := _busy(spec, seen, now, asked_from=record.since):
        return event
    if _is_acked(record, seen) and drain_blocker(record, spec, seen) is None:
        return events.Drained(record.reason)
    return None


def _is_new_use(record: Record, seen: Observed, traffic: ServiceUsage) -> bool:
    """Return whether the traffic of a window makes a draining service active.

    A window that began before the drain may show use at the end of `idleAfter`: the service was then not idle. Use
    before a sleep command does not count.
    """
    began = traffic.window_start if _was_commanded(record, seen) else traffic.taken_at
    return began >= record.since


def _unknown(record: Record, seen: Observed, now: float, stale_after: float, *, patient: bool = False) -> Event | None:
    """Return the event for unknown usage, or None; `patient` allows for the first two samples of an Envoy."""
    if seen.replicas is None and seen.diagnosis:
        return events.TrafficUnknown(f"the state of the workload is unknown: {seen.diagnosis}")
    if seen.held is None:
        return events.TrafficUnknown(HOLDER_MISSING.message)
    seen_at = seen.traffic.taken_at if seen.traffic else 0.0
    if now - max(seen_at, record.since) > stale_after:
        return events.TrafficUnknown("there is no recent sample")
    traffic = seen.traffic
    if traffic and traffic.usage is Usage.UNKNOWN and traffic.taken_at > record.since:
        waits = patient and traffic.starting and not (traffic.moved and _is_new_use(record, seen, traffic))
        return None if waits else events.TrafficUnknown(traffic.reason)
    return None


def waiting_clients(held: int) -> str:
    """Return the reason for a wake, for people."""
    return f"{held} clients are waiting" if held > 1 else "a client is waiting"
