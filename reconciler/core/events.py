"""What can happen to a service: the input of the machine.

Rule: an event is a fact in the past tense, or a command of a person; it carries what its guards need, nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to one service; `reason` tells people what and why."""

    reason: str = ""

    @property
    def name(self) -> str:
        return type(self).__name__


@dataclass(frozen=True, slots=True)
class DemandSeen(Event):
    """Somebody waits for the service."""


@dataclass(frozen=True, slots=True)
class Ready(Event):
    """A dial to one of the service's endpoints succeeded."""


@dataclass(frozen=True, slots=True)
class WakeStalled(Event):
    """The place where the service runs told why it does not get ready; `reason` says it."""


@dataclass(frozen=True, slots=True)
class WakeTimedOut(Event):
    """The wake took longer than the service's `wakeTimeout`."""

    wanted: bool = True
    """Whether somebody waits, or is still connected; true when that is not known."""


@dataclass(frozen=True, slots=True)
class ReplicasAtZero(Event):
    """The service was seen to have zero replicas."""


@dataclass(frozen=True, slots=True)
class EndpointsLost(Event):
    """There are replicas, and none of them can be reached: a crash."""


@dataclass(frozen=True, slots=True)
class Quiet(Event):
    """A complete sample showed no traffic."""


@dataclass(frozen=True, slots=True)
class Traffic(Event):
    """A sample showed traffic."""


@dataclass(frozen=True, slots=True)
class TrafficUnknown(Event):
    """Whether there is traffic cannot be told; `reason` says why."""


@dataclass(frozen=True, slots=True)
class IdleElapsed(Event):
    """The service was quiet for all of its `idleAfter`."""

    paused: bool = False
    """Whether a person asked that the service is not put to sleep."""


@dataclass(frozen=True, slots=True)
class Drained(Event):
    """The route to the hold address is acknowledged everywhere, and nothing is in flight any more."""


@dataclass(frozen=True, slots=True)
class DrainTimedOut(Event):
    """Work was still in flight after the service's `drainTimeout`."""


@dataclass(frozen=True, slots=True)
class WakeCommanded(Event):
    """A person asked for the service to be awake."""


@dataclass(frozen=True, slots=True)
class SleepCommanded(Event):
    """A person asked for the service to sleep."""
