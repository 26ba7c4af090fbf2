"""Edges: each change of a state, told to whoever listens (logs, metrics, events)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from reconciler.core.record import State


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of one service's state, or a wake that became stalled (then `source` equals `target`)."""

    service: str
    source: State
    event: str
    target: State
    reason: str
    at: float
    reference: str = ""
    """The id by which refusals to clients name this wake."""


Listener = Callable[[Transition], None]
