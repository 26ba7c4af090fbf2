"""One input after another: one that comes while another is being handled waits for its turn.

Adapters may report from within a call of the engine; a record must not be stepped in the middle of a step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import wraps
from typing import Protocol


class Turns:
    """The inputs that wait."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()
        self._busy = False

    def take(self, act: Callable[[], None]) -> None:
        """Do it now, and what came meanwhile after it; or later, if something is being done."""
        if self._busy:
            self._waiting.append(act)
            return
        self._busy = True
        try:
            act()
            while self._waiting:
                self._waiting.popleft()()
        finally:
            self._busy = False


class HasTurns(Protocol):
    """Whoever takes inputs in turn."""

    turns: Turns


def in_turn(act: Callable[..., None]) -> Callable[..., None]:
    """Make a method an input."""

    @wraps(act)
    def queued(self: HasTurns, *values: object) -> None:
        self.turns.take(lambda: act(self, *values))

    return queued
