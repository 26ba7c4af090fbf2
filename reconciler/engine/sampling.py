"""Samples: the loop that takes them, and the requests that they count."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from reconciler.core.traffic import NEVER_USED, RESTART_TOLERANCE_SECONDS, Counters, EnvoyReading, Sample
from reconciler.ports.clock import Clock


class Sampler:
    """Loop that passes a sample to `sampled` every `interval` seconds, with at least `spacing` seconds between two.

    `sample` reads the counters of all Envoys; one that does not respond is in `Sample.missing` and raises no error.
    Requested times are seconds since the epoch; waiting uses the monotonic clock.
    """

    def __init__(
        self,
        sample: Callable[[], Awaitable[Sample]],
        interval: float,
        spacing: float,
        clock: Clock,
        sampled: Callable[[Sample], object],
    ) -> None:
        self.interval, self._spacing = interval, spacing
        self._sample, self._now, self._sampled, self._ticks = sample, clock.now, sampled, clock.ticks
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
            self._sampled(await self._sample())
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


class RequestCounter:
    """New requests of each service since the previous sample, for people and metrics; not used to judge idleness.

    Counts since `since` (seconds since the epoch); earlier counts of an Envoy may belong to another process.
    """

    def __init__(self, since: float) -> None:
        self._since = since
        self._known: dict[str, EnvoyReading] = {}
        """Latest reading of each Envoy, including those that are missing from the latest sample."""

    def requests(self, sample: Sample) -> dict[str, int]:
        """Return new requests by service, or new connections if Envoy counts no requests.

        The result contains every service with a changed counter or with work in flight.
        """
        used: dict[str, int] = {}
        for envoy, reading in sample.envoys.items():
            before = self._known.get(envoy)
            began = sample.read_at(envoy) - reading.uptime
            is_ours = before is not None or began >= self._since - RESTART_TOLERANCE_SECONDS
            for service, now in reading.services.items():
                was = before.services.get(service, NEVER_USED) if before else NEVER_USED if is_ours else now
                if was != now or now.active_requests or now.active_connections:
                    used[service] = used.get(service, 0) + _growth(was, now)
        kept = {envoy: self._known[envoy] for envoy in sample.missing if envoy in self._known}
        self._known = {**kept, **sample.envoys}
        return used


def _growth(was: Counters, now: Counters) -> int:
    """Return the growth of a counter; one that went backwards started again at zero."""
    before, after = was.requests or was.connections, now.requests or now.connections
    return after - before if after >= before else after
