"""A queue of inputs: an input that arrives while another is handled is handled after it.

Adapters may report during a call from the engine; a record must not be stepped in the middle of a step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import wraps
from typing import Protocol


class Turns:
    """A queue of inputs."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()
        self._busy = False

    def take(self, act: Callable[[], None]) -> None:
        """Handle an input now, followed by those that it causes; queue it if another is being handled."""
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
    """An object with a queue of inputs."""

    turns: Turns


def in_turn(act: Callable[..., None]) -> Callable[..., None]:
    """Turn a method into an input."""

    @wraps(act)
    def queued(self: HasTurns, *values: object) -> None:
        self.turns.take(lambda: act(self, *values))

    return queued
