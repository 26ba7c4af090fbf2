"""The loop that takes samples: every interval, and earlier when a drain waits for one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from reconciler.core.traffic import Sample
from reconciler.ports.traffic import TrafficSource


class Sampler:
    """Takes a sample every `interval` seconds and hands it to `sampled`; two are at least `spacing` seconds apart.

    What to wait for is said in seconds since the epoch (`now`), and waited for by `ticks`, which nobody can set.
    """

    def __init__(
        self,
        source: TrafficSource,
        interval: float,
        spacing: float,
        now: Callable[[], float],
        sampled: Callable[[Sample], None],
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self.interval, self._spacing = interval, spacing
        self._source, self._now, self._sampled, self._ticks = source, now, sampled, ticks
        self._asked_for: float | None = None
        self._asked = asyncio.Event()

    def ask(self, at: float) -> None:
        """Take a sample at `at` (seconds since the epoch), if none is due before."""
        due = self._ticks() + at - self._now()
        if self._asked_for is None or due < self._asked_for:
            self._asked_for = due
            self._asked.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            if self._asked_for is not None and self._asked_for <= self._ticks():
                self._asked_for = None
            self._sampled(await self._source.sample())
            await self._pause()

    async def _pause(self) -> None:
        began = self._ticks()
        regular, soonest = began + self.interval, began + self._spacing
        while (left := min(regular, max(soonest, self._asked_for or regular)) - self._ticks()) > 0:
            self._asked.clear()
            try:
                await asyncio.wait_for(self._asked.wait(), left)
            except TimeoutError:
                return
