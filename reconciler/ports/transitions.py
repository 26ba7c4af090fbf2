"""Port for transitions, which logs, metrics and Events report."""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.core.record import State


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
