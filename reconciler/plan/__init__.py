"""The levels that follow from a record: what the world should look like while a service is in its state.

Pure. Adapters converge to a plan by diff, with retries; a restart computes it again, so nothing is forgotten half-way.
Counterpart: `reconciler.core.machine`, which makes the records.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import floor

from reconciler.core import events
from reconciler.core.events import Event
from reconciler.core.record import Record, State
from reconciler.core.spec import Spec


class Route(StrEnum):
    """Destination of connections to a service."""

    PODS = "pods"
    HOLD = "hold"


@dataclass(frozen=True, slots=True)
class AtLeast:
    """A wake: this many replicas, when there are none."""

    replicas: int


@dataclass(frozen=True, slots=True)
class Zero:
    """Sleep: exactly no replica."""


Scale = AtLeast | Zero | None
"""None: no opinion; whoever owns the number may change it."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """An event that is due at `at` (seconds since the epoch) unless the state changes before."""

    at: float
    event: type[Event]


@dataclass(frozen=True, slots=True)
class Plan:
    """The desired levels of one service, which adapters converge to."""

    scale: Scale
    route: Route
    release: bool
    """True if holders connect waiting clients to the endpoints as soon as there are any."""
    deadline: Deadline | None


_FALLS_ASLEEP = Plan(Zero(), Route.HOLD, False, None)
_ASLEEP = Plan(None, Route.HOLD, False, None)
_AWAKE = Plan(None, Route.PODS, True, None)


def plan(record: Record, spec: Spec, now: float, lag: float = 0.0) -> Plan:
    """The plan of one service at `now` (seconds since the epoch).

    `lag` is how many seconds it may take until there is a sample of what is now: `drainTimeout` is for work in flight,
    not for the proof that there is none.
    """
    match record.state:
        case State.ScaledToZero:
            # Once zero was seen, a number that is not zero is somebody else's: theirs to choose, until it is ready.
            return _ASLEEP if record.zeroed else _FALLS_ASLEEP
        case State.Waking:
            wanted = AtLeast(spec.replicas or record.replicas)
            return Plan(wanted, Route.HOLD, True, Deadline(_next_time_out(record, spec, now), events.WakeTimedOut))
        case State.Active:
            return _AWAKE
        case State.Idle:
            stays = spec.paused or spec.departing
            deadline = None if stays else Deadline(record.since + spec.idle_after, events.IdleElapsed)
            return Plan(None, Route.PODS, True, deadline)
        case State.Draining:
            return Plan(
                None, Route.HOLD, False, Deadline(record.since + spec.drain_timeout + lag, events.DrainTimedOut)
            )


def followed(wanted: Plan, record: Record, fence: bool) -> Plan:
    """Return what a follower applies of a plan: it scales nothing to zero, and releases none while fenced."""
    scale = wanted.scale if isinstance(wanted.scale, AtLeast) else None
    deadline = wanted.deadline if record.state is State.Waking else None
    return Plan(scale, wanted.route, wanted.release and not (fence and record.state is State.Waking), deadline)


def _next_time_out(record: Record, spec: Spec, now: float) -> float:
    """A wake that does not end times out again and again, every `wake_timeout`."""
    passed = max(0, floor((now - record.since) / spec.wake_timeout))
    coming = record.since + (passed + 1) * spec.wake_timeout
    return coming if coming > now else coming + spec.wake_timeout
