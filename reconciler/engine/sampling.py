"""The loop that takes samples: once per interval, and earlier if a drain needs one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from reconciler.core.traffic import Sample
from reconciler.ports.clock import Clock
from reconciler.ports.usage import TrafficSource


class Sampler:
    """Loop that passes a sample to `sampled` every `interval` seconds, with at least `spacing` seconds between two.

    Requested times are seconds since the epoch; waiting uses the monotonic clock.
    """

    def __init__(
        self,
        source: TrafficSource,
        interval: float,
        spacing: float,
        clock: Clock,
        sampled: Callable[[Sample], object],
    ) -> None:
        self.interval, self._spacing = interval, spacing
        self._source, self._now, self._sampled, self._ticks = source, clock.now, sampled, clock.ticks
        self._asked_for: float | None = None
        self._asked = asyncio.Event()

    def ask(self, at: float) -> None:
        """Request a sample at `at` (seconds since the epoch), if none is due earlier."""
        due = self._ticks() + at - self._now()
        if self._asked_for is None or due < self._asked_for:
            self._asked_for = due
            self._asked.set()

    async def run(self) -> None:
        """Take samples until cancelled."""
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
