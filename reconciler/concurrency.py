"""Delays between failing attempts, calls in the next turn of the event loop, and blocking calls in threads."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

EXPONENT_MAX = 64
"""Limit of the exponent of a backoff, so that no number of failures overflows."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """A sequence of delays in seconds that grow from `first` to `longest`, before jitter.

    Jitter spreads clients that failed together. The holder has its own function, because it imports nothing of the
    reconciler.
    """

    first: float
    longest: float
    factor: float = 2.0
    """Ratio of a delay to the previous one."""
    jitter: tuple[float, float] = (0.8, 1.2)
    """Bounds of the random factor of each delay."""

    def delay(self, failures: int) -> float:
        """Return the delay after a number of earlier failures in a row."""
        grown = min(self.longest, self.first * self.factor ** min(failures, EXPONENT_MAX))
        return grown * random.uniform(*self.jitter)

    def delays(self) -> Iterator[float]:
        """Yield the delays of one operation, from the first, without end."""
        return map(self.delay, itertools.count())


class NextTurn:
    """Calls a function with each key that was added, once, in the next turn of the event loop."""

    def __init__(self, call: Callable[[str], None]) -> None:
        self._call = call
        self._keys: dict[str, None] = {}

    def add(self, key: str) -> None:
        """Call the function with this key soon."""
        if not self._keys:
            asyncio.get_running_loop().call_soon(self._run)
        self._keys[key] = None

    def _run(self) -> None:
        keys, self._keys = self._keys, {}
        for key in keys:
            self._call(key)


def in_thread(call: Callable[[], T], name: str) -> asyncio.Future[T]:
    """Run the call in a daemon thread; return its result or error as a future of the running loop.

    The executors of asyncio join their threads at exit, so a hanging call to a disk or server would block the exit.
    """
    made: Future[T] = Future()
    made.set_running_or_notify_cancel()  # cancelling the wait does not cancel the call

    def run() -> None:
        try:
            made.set_result(call())
        except BaseException as error:
            made.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return asyncio.wrap_future(made)
