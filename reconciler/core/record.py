"""The persisted record of a service: its state and the facts that cannot be observed again; its transitions.

Rule: immutable values, no I/O, no clock. Counterpart: `machine.py`, which returns the next record.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from reconciler.core.reasons import Diagnosis


class State(StrEnum):
    """A state of the machine."""

    ScaledToZero = "ScaledToZero"
    Waking = "Waking"
    Active = "Active"
    Idle = "Idle"
    Draining = "Draining"


AWAKE_STATES = (State.Active, State.Idle)
"""States in which zenvoy did not put the service to sleep, and clients reach it."""


@dataclass(frozen=True, slots=True)
class Record:
    """The record of one service."""

    state: State
    since: float
    """Time at which the state was entered, in seconds since the epoch."""
    reason: str
    """Reason for entering the state, for people."""
    replicas: int
    """The last number of replicas while awake, at least 1; a wake restores it."""
    hold_address: str
    """Destination of connections while the service has no endpoints, as `host:port`."""
    stalled: str | None = None
    """Text of the `Diagnosis` of a stalled wake; None while no fault is known."""
    zeroed: bool = False
    """True if zero replicas were observed since ScaledToZero was entered."""

    @property
    def diagnosis(self) -> Diagnosis | None:
        """The reason why the wake is stalled; None while no fault is known."""
        return None if self.stalled is None else Diagnosis.parse(self.stalled)


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of one service's state, or a wake that became stalled (then `source` equals `target`)."""

    service: str
    source: State
    event: str
    target: State
    reason: str
    at: float
    reference: str = ""
    """Id of this wake in refusals to clients."""
