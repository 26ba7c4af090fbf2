"""Events of a service: the input of the state machine.

Rule: an event is a fact in the past tense, or a command of a person; it carries only the values that its guards need.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """An event of one service; `reason` explains it to people."""

    reason: str = ""

    @property
    def name(self) -> str:
        return type(self).__name__


@dataclass(frozen=True, slots=True)
class DemandSeen(Event):
    """A client is waiting for the service."""


@dataclass(frozen=True, slots=True)
class Ready(Event):
    """A dial to one of the service's endpoints succeeded."""


@dataclass(frozen=True, slots=True)
class WakeStalled(Event):
    """The workload does not become ready; `reason` is the text of its diagnosis."""


@dataclass(frozen=True, slots=True)
class WakeTimedOut(Event):
    """The wake took longer than the service's `wakeTimeout`."""

    wanted: bool = True
    """True if a client is waiting or connected, or if that is unknown."""


@dataclass(frozen=True, slots=True)
class ReplicasAtZero(Event):
    """Zero replicas were observed."""


@dataclass(frozen=True, slots=True)
class EndpointsLost(Event):
    """Replicas exist, and none of them is reachable, as after a crash."""


@dataclass(frozen=True, slots=True)
class RolloutStarted(Event):
    """The endpoints of an earlier program are withdrawn, so that the program can be replaced."""


@dataclass(frozen=True, slots=True)
class Quiet(Event):
    """A complete sample showed no traffic."""


@dataclass(frozen=True, slots=True)
class Traffic(Event):
    """A sample showed traffic."""


@dataclass(frozen=True, slots=True)
class TrafficUnknown(Event):
    """Usage is unknown; `reason` explains why."""


@dataclass(frozen=True, slots=True)
class BusySeen(Event):
    """The service works without a client, or its busy check failed."""


@dataclass(frozen=True, slots=True)
class IdleElapsed(Event):
    """The service had no traffic for its `idleAfter`."""

    paused: bool = False
    """True if the service is paused."""


@dataclass(frozen=True, slots=True)
class Drained(Event):
    """Every Envoy and holder acknowledged the route to the hold address, and nothing is in flight."""


@dataclass(frozen=True, slots=True)
class DrainTimedOut(Event):
    """Work was still in flight after the service's `drainTimeout`."""


@dataclass(frozen=True, slots=True)
class WakeCommanded(Event):
    """A person asked for the service to be awake."""


@dataclass(frozen=True, slots=True)
class SleepCommanded(Event):
    """A person asked for the service to sleep."""


@dataclass(frozen=True, slots=True)
class ProgramOutdated(Event):
    """The program was changed while an earlier one runs; after a sleep, the new one runs."""


@dataclass(frozen=True, slots=True)
class DeletionStarted(Event):
    """The service's object is being deleted; the service is awake until no client needs it."""
