"""The last transitions of each service, for people who ask why. Pure.

Rule: bounded and compact, since every sleeping service has one; a service that never moved costs nothing.
"""

from __future__ import annotations

import sys
from typing import Any

from reconciler.ports.transitions import Transition

LAST = 10
"""Transitions that are remembered of each service."""
_FIELDS = 6


class History:
    """By service, its last transitions; they last as long as the process."""

    def __init__(self) -> None:
        self._moves: dict[str, tuple[Any, ...]] = {}
        """Flat, so that one transition costs six references, in the order of `note`; oldest first."""

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
        """The latest first."""
        flat = self._moves.get(service, ())
        moves = (flat[at : at + _FIELDS] for at in range(0, len(flat), _FIELDS))
        return tuple(
            Transition(service, source, event, target, reason, at, reference)
            for at, source, event, target, reason, reference in moves
        )[::-1]

    def forget(self, service: str) -> None:
        """The service is no more."""
        self._moves.pop(service, None)
