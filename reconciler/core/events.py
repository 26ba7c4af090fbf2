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


class DemandSeen(Event):
    """A client is waiting for the service."""


class Ready(Event):
    """A dial to one of the service's endpoints succeeded."""


class WakeStalled(Event):
    """The workload does not become ready; `reason` is the text of its diagnosis."""


@dataclass(frozen=True, slots=True)
class WakeTimedOut(Event):
    """The wake took longer than the service's `wakeTimeout`."""

    wanted: bool = True
    """True if a client is waiting or connected, or if that is unknown."""


class ReplicasAtZero(Event):
    """Zero replicas were observed."""


class EndpointsLost(Event):
    """Replicas exist, and none of them is reachable, as after a crash."""


class RolloutStarted(Event):
    """The endpoints of an earlier program are withdrawn, so that the program can be replaced."""


class Quiet(Event):
    """A complete sample showed no traffic."""


class Traffic(Event):
    """A sample showed traffic."""


class TrafficUnknown(Event):
    """Usage is unknown; `reason` explains why."""


class BusySeen(Event):
    """The service works without a client, or its busy check failed."""


@dataclass(frozen=True, slots=True)
class IdleElapsed(Event):
    """The service had no traffic for its `idleAfter`."""

    paused: bool = False
    """True if the service is paused."""


class Drained(Event):
    """Every Envoy and holder acknowledged the route to the hold address, and nothing is in flight."""


class DrainTimedOut(Event):
    """Work was still in flight after the service's `drainTimeout`."""


class WakeCommanded(Event):
    """A person asked for the service to be awake."""


class SleepCommanded(Event):
    """A person asked for the service to sleep."""


class ProgramOutdated(Event):
    """The program was changed while an earlier one runs; after a sleep, the new one runs."""


class DeletionStarted(Event):
    """The service's object is being deleted; the service is awake until no client needs it."""
