"""Exponential backoff: the delays between the attempts of an operation that fails. Pure.

Jitter spreads clients that failed together. The holder has its own function, because it imports nothing of the
reconciler.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

EXPONENT_MAX = 64
"""Limit of the exponent, so that no number of failures overflows."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """A sequence of delays in seconds that grow from `first` to `longest`, before jitter."""

    first: float
    longest: float
    factor: float = 2.0
    """Ratio of a delay to the previous one."""
    jitter: tuple[float, float] = (0.8, 1.2)
    """Bounds of the random factor of each delay."""

    def delay(self, failures: int, chance: float = 0.0) -> float:
        """Return the delay after a number of earlier failures in a row.

        `chance` in [0, 1) selects the random factor between its bounds.
        """
        low, high = self.jitter
        grown = min(self.longest, self.first * self.factor ** min(failures, EXPONENT_MAX))
        return grown * (low + (high - low) * chance)

    def delays(self, chance: Callable[[], float]) -> Iterator[float]:
        """Yield the delays of one operation, from the first, without end.

        `chance` returns a number in [0, 1), such as `random.random`.
        """
        return (self.delay(failures, chance()) for failures in itertools.count())
