"""How observations become events: level-triggered, so that a lost edge or a restart loses nothing.

`judge` looks at all that is known of a service now and names the one event that its state must hear, or None when the
record and the world agree. Calling it again after each `step` until it is silent brings any record up to date.
No I/O, no clock. Counterpart: `machine.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.core import events
from reconciler.core.events import Event
from reconciler.core.record import Record, State
from reconciler.core.spec import IdleBy, Spec
from reconciler.core.traffic import Judgement, Usage
from reconciler.core.wording import counted

SETTLE_SECONDS = 0.1
"""How long after an acknowledgement a sample counts: Envoy's main thread acknowledges, its workers follow."""


@dataclass(frozen=True, slots=True)
class Observed:
    """All that is seen of one service at this moment; nothing of it is persisted."""

    replicas: int | None = None
    """Replicas that exist or are wanted by their owner; None while not known."""
    endpoints: tuple[str, ...] = ()
    """`ip:port` of everything that can be dialled now."""
    trouble: str | None = None
    """Why the place where it runs cannot make it ready."""
    held: int | None = None
    """Connections that wait, in all holders; None while a holder is missing."""
    relayed: int | None = None
    """Connections that run through a holder; None while a holder is missing."""
    traffic: Judgement | None = None
    """The latest judgement; None before the first."""
    route_acked_at: float | None = None
    """When the last Envoy and the last holder acknowledged the present route; None until then."""
    waiting_for: str = "no Envoy is connected"
    """Who has yet to acknowledge the route, for people."""


def judge(record: Record, spec: Spec, seen: Observed, now: float, stale_after: float) -> Event | None:
    """The event that this record must hear next, or None.

    `now` is seconds since the epoch; a judgement older than `stale_after` seconds is unknown.
    """
    if spec.departing and record.state in (State.ScaledToZero, State.Draining):
        return events.WakeCommanded("it is being deleted")
    match record.state:
        case State.ScaledToZero:
            return _asleep(record, seen)
        case State.Waking:
            return waking(record, seen)
        case State.Active:
            return _lost(seen) or _active(record, seen, now, stale_after)
        case State.Idle:
            return _lost(seen) or _idle(record, seen, now, stale_after)
        case State.Draining:
            return _draining(record, spec, seen, now, stale_after)


def due(record: Record, seen: Observed, event: type[Event], paused: bool, departing: bool = False) -> Event:
    """The event that a deadline brings, filled with what is known when it passes."""
    if event is events.WakeTimedOut:
        wanted = departing or _wanted(record, seen)
        return events.WakeTimedOut(seen.trouble or "it is not ready, and nothing says why", wanted=wanted)
    if event is events.DrainTimedOut:
        return events.DrainTimedOut(undrained(record, seen) or "the drain took too long")
    return events.IdleElapsed("idle for all of idleAfter", paused=paused)


def undrained(record: Record, seen: Observed, by: IdleBy = IdleBy.REQUESTS) -> str | None:
    """Why a draining service may not be scaled to zero yet, or None when it may."""
    if seen.held is None or seen.relayed is None:
        return "a holder is not connected"
    if seen.relayed and by is not IdleBy.BYTES:
        return f"{counted(seen.relayed, 'connection')} {'is' if seen.relayed == 1 else 'are'} relayed"
    if seen.route_acked_at is None:
        return f"the route is not acknowledged: {seen.waiting_for}"
    if seen.traffic is None or seen.traffic.usage is Usage.UNKNOWN:
        return "whether anything is in flight is not known"
    if seen.traffic.taken_at < max(seen.route_acked_at + SETTLE_SECONDS, record.since):
        return "no sample since the route was acknowledged"
    if seen.traffic.in_flight:
        return f"{counted(seen.traffic.in_flight, by.one)} in flight"
    return None


def _wanted(record: Record, seen: Observed) -> bool:
    """Whether somebody waits or is still connected; saying no takes the evidence that a drain takes."""
    return bool(seen.held) or undrained(record, seen) is not None


def _asleep(record: Record, seen: Observed) -> Event | None:
    if seen.held:
        return events.Demand(_waits(seen.held))
    if seen.traffic and seen.traffic.usage is Usage.TRAFFIC and seen.traffic.window_start >= record.since:
        return events.Demand(f"Envoy saw traffic: {seen.traffic.reason}")
    if seen.replicas == 0 and not record.zeroed:
        return events.Zeroed("confirmed")
    if record.zeroed and seen.replicas and seen.endpoints:
        return events.Ready("somebody else scaled it up")
    return None


def waking(record: Record, seen: Observed) -> Event | None:
    """What a wake hears of the place where the service runs."""
    if seen.endpoints and seen.replicas != 0:
        return events.Ready("reachable")
    if seen.trouble and seen.trouble != record.stalled:
        return events.WakeStalled(seen.trouble)
    return None


def _lost(seen: Observed) -> Event | None:
    if seen.replicas == 0:
        return events.Zeroed("somebody else scaled it to zero")
    if seen.replicas and not seen.endpoints:
        return events.EndpointsLost(seen.trouble or "no endpoint can be reached")
    return None


def _active(record: Record, seen: Observed, now: float, stale_after: float) -> Event | None:
    if seen.held or _unknown(record, seen, now, stale_after):
        return None
    if seen.traffic and seen.traffic.usage is Usage.QUIET and seen.traffic.taken_at > record.since:
        return events.Quiet("no traffic")
    return None


def _idle(record: Record, seen: Observed, now: float, stale_after: float) -> Event | None:
    if seen.held:
        return events.Demand(_waits(seen.held))
    if unknown := _unknown(record, seen, now, stale_after):
        return unknown
    if seen.traffic is None:
        return events.TrafficUnknown("there is no recent sample")
    if seen.traffic.usage is Usage.TRAFFIC:
        return events.Traffic(seen.traffic.reason)
    return None


def _draining(record: Record, spec: Spec, seen: Observed, now: float, stale_after: float) -> Event | None:
    if seen.replicas == 0:
        return events.Zeroed("somebody else scaled it to zero")
    if seen.held:
        return events.Demand(_waits(seen.held))
    if unknown := _unknown(record, seen, now, stale_after):
        return unknown
    # What was in flight before may finish, for as long as `drainTimeout`; what comes anew makes it active.
    if seen.traffic and seen.traffic.moved and seen.traffic.window_start >= record.since:
        return events.Traffic(seen.traffic.reason)
    # An acknowledgement from before the drain is the pods' route's: this look at the world may precede the new route.
    acked = seen.route_acked_at is not None and seen.route_acked_at >= record.since
    if acked and undrained(record, seen, spec.idle_by) is None:
        return events.Drained(record.reason)
    return None


def _unknown(record: Record, seen: Observed, now: float, stale_after: float) -> Event | None:
    if seen.held is None:
        return events.TrafficUnknown("a holder is not connected")
    seen_at = seen.traffic.taken_at if seen.traffic else 0.0
    if now - max(seen_at, record.since) > stale_after:
        return events.TrafficUnknown("there is no recent sample")
    if seen.traffic and seen.traffic.usage is Usage.UNKNOWN and seen.traffic.taken_at > record.since:
        return events.TrafficUnknown(seen.traffic.reason)
    return None


def _waits(held: int) -> str:
    return f"{held} waiting" if held > 1 else "somebody waits"
