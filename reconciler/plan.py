"""Plans: the desired levels that follow from a record.

Pure. Adapters converge to a plan by diff, with retries. A restart computes the plan again, so no step is lost.
Counterpart: `reconciler.core.machine`, which returns the records.
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
    """Scale for a wake: this number of replicas if there are none."""

    replicas: int


@dataclass(frozen=True, slots=True)
class Zero:
    """Scale for sleep: zero replicas."""


Scale = AtLeast | Zero | None
"""None: the plan does not determine the number of replicas; its owner may change it."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """An event that is due at `at` (seconds since the epoch) unless the state changes earlier."""

    at: float
    event: type[Event]


@dataclass(frozen=True, slots=True)
class Plan:
    """The desired levels of one service."""

    scale: Scale
    route: Route
    release: bool
    """True if holders connect waiting clients to the endpoints once there are any."""
    deadline: Deadline | None


_FALLS_ASLEEP = Plan(Zero(), Route.HOLD, False, None)
_ASLEEP = Plan(None, Route.HOLD, False, None)
_AWAKE = Plan(None, Route.PODS, True, None)


def plan(record: Record, spec: Spec, now: float, lag: float = 0.0) -> Plan:
    """Return the plan of one service at `now` (seconds since the epoch).

    `lag` is the longest delay in seconds until a sample covers the present. It is added to `drainTimeout`, which limits
    the work in flight and not the wait for evidence.
    """
    match record.state:
        case State.ScaledToZero:
            # After an observed zero, another number was set by someone else: leave it, and become active when ready.
            return _ASLEEP if record.zeroed else _FALLS_ASLEEP
        case State.Waking:
            wanted = AtLeast(spec.replicas or record.replicas)
            return Plan(wanted, Route.HOLD, True, Deadline(_next_time_out(record, spec, now), events.WakeTimedOut))
        case State.Active:
            return _AWAKE
        case State.Idle:
            idle_at = record.since + spec.idle_after
            is_asked = spec.has_busy_check and now >= idle_at  # the answer decides, whenever it comes
            stays = spec.paused or spec.departing or is_asked
            return Plan(None, Route.PODS, True, None if stays else Deadline(idle_at, events.IdleElapsed))
        case State.Draining:
            ends_at = record.since + spec.drain_timeout + lag
            return Plan(None, Route.HOLD, False, Deadline(ends_at, events.DrainTimedOut))


def followed(wanted: Plan, record: Record, fence: bool) -> Plan:
    """Return the part of a plan that a follower applies: no scale to zero, and no release while fenced."""
    scale = wanted.scale if isinstance(wanted.scale, AtLeast) else None
    deadline = wanted.deadline if record.state is State.Waking else None
    return Plan(scale, wanted.route, wanted.release and not (fence and record.state is State.Waking), deadline)


def _next_time_out(record: Record, spec: Spec, now: float) -> float:
    """Return the next timeout of a wake, which times out every `wake_timeout` until it ends."""
    passed = max(0, floor((now - record.since) / spec.wake_timeout))
    coming = record.since + (passed + 1) * spec.wake_timeout
    return coming if coming > now else coming + spec.wake_timeout
