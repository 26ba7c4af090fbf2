"""The last transitions of each service, for `zenvoy explain`. Pure.

Rule: bounded and compact, because every sleeping service has a history; a service without transitions costs nothing.
"""

from __future__ import annotations

import sys
from typing import Any

from reconciler.core.record import Transition

LAST = 10
"""Number of transitions per service."""
_FIELDS = 6


class History:
    """Last transitions by service; kept in memory only."""

    def __init__(self) -> None:
        self._moves: dict[str, tuple[Any, ...]] = {}
        """Fields of all transitions in one flat tuple, oldest first, so that a transition costs six references."""

    def note(self, transition: Transition) -> None:
        """Append a transition."""
        move = (
            transition.at,
            transition.source,
            transition.event,
            transition.target,
            sys.intern(transition.reason),  # most services have the same few reasons
            transition.reference,
        )
        before = self._moves.get(transition.service, ())
        self._moves[transition.service] = (*before[-_FIELDS * (LAST - 1) :], *move)

    def of(self, service: str) -> tuple[Transition, ...]:
        """Return the transitions of a service, the latest first."""
        flat = self._moves.get(service, ())
        moves = (flat[at : at + _FIELDS] for at in range(0, len(flat), _FIELDS))
        return tuple(
            Transition(service, source, event, target, reason, at, reference)
            for at, source, event, target, reason, reference in moves
        )[::-1]

    def forget(self, service: str) -> None:
        """Remove a service."""
        self._moves.pop(service, None)
