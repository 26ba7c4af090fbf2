"""The persisted record of a service: its state and the few facts that cannot be observed again.

Rule: immutable values, no I/O, no clock. Counterpart: `machine.py`, which makes the next record out of this one.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from reconciler.core.reasons import Diagnosis


class State(StrEnum):
    """Where a service stands between asleep and awake."""

    ScaledToZero = "ScaledToZero"
    Waking = "Waking"
    Active = "Active"
    Idle = "Idle"
    Draining = "Draining"


@dataclass(frozen=True, slots=True)
class Record:
    """One service, as it is persisted."""

    state: State
    since: float
    """When the state was entered, in seconds since the epoch."""
    reason: str
    """Reason for entering the state, for people."""
    replicas: int
    """The last number of replicas while awake, at least 1: what a wake restores."""
    hold_address: str
    """Where Envoy sends connections while there is nobody else to take them, as `host:port`."""
    stalled: str | None = None
    """Text of the `Diagnosis` of a stalled wake; None while nothing is known to be wrong."""
    zeroed: bool = False
    """True if zero replicas were observed since ScaledToZero was entered."""

    @property
    def diagnosis(self) -> Diagnosis | None:
        """The reason why the wake is stalled; None while nothing is known to be wrong."""
        return None if self.stalled is None else Diagnosis.parse(self.stalled)
