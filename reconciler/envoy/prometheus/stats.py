"""Samples from Prometheus, which scrapes Envoy. Counterpart: `reconciler.engine.sampling`.

One query returns the raw counters of all services. Differences are computed here, since `increase()` ignores the first
appearance of a counter, which is traffic. The time of a scrape is converted to our own clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from math import isfinite

from reconciler.concurrency import in_thread
from reconciler.core.traffic import EnvoyReading, Sample
from reconciler.envoy.admin_stats import UnusableStatsError
from reconciler.envoy.prometheus.client import Client
from reconciler.envoy.prometheus.rows import QUERY, UPTIME, Scraped, read
from reconciler.envoy.prometheus.settings import PrometheusSettings

CLOCK_TOLERANCE_SECONDS = 1.0
"""Beyond this difference between the clocks, the time of a scrape is too uncertain."""


class PrometheusStats:
    """A source of samples: Prometheus. `expected` returns the Envoys that must be in each sample."""

    def __init__(
        self,
        settings: PrometheusSettings,
        now: Callable[[], float],
        expected: Callable[[], frozenset[str]],
    ) -> None:
        self._settings, self._now, self._expected = settings, now, expected
        self._scrapes: dict[str, tuple[float, float]] = {}
        """By Envoy, the time of its latest scrape by Prometheus' clock, and by ours."""
        self._client = Client(settings)
        self._asking: asyncio.Future[Sample] | None = None

    async def close(self) -> None:
        self._client.close()

    async def sample(self) -> Sample:
        """Take a sample in a thread, since the client blocks: one at a time, even if it hangs."""
        asked_at, expected = self._now(), self._expected()
        try:
            async with asyncio.timeout(self._settings.seconds_max):
                if self._asking:  # its caller has given up, and the expected Envoys may have changed
                    await asyncio.wait({self._asking})
                self._asking = in_thread(lambda: self._sample(expected), "prometheus")
                return await asyncio.shield(self._asking)
        except TimeoutError:
            return _failed(asked_at, expected, f"its answer is not complete after {self._settings.seconds_max:g} s")

    def _sample(self, expected: frozenset[str]) -> Sample:
        """Take a sample; runs in the thread, and the expected Envoys are determined on the event loop before."""
        asked_at = self._now()
        try:
            ahead = self._clock_ahead()
            known_at = self._now()  # the transfer of a large answer must not make its scrapes look old
            rows = self._client.query(QUERY, len(expected))
            return self._made(expected, known_at, ahead, read(rows, expected))
        except UnusableStatsError as error:
            return _failed(asked_at, expected, str(error))
        except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError) as error:
            return _failed(asked_at, expected, f"its answer cannot be parsed ({type(error).__name__})")

    def _clock_ahead(self) -> float:
        """Return the lead of Prometheus' clock in seconds. Raises `UnusableStatsError` beyond the tolerance."""
        before = self._now()
        moment = float(self._client.query("time()")[1])
        after = self._now()
        if not isfinite(moment):
            raise UnusableStatsError("its time is not a number")
        ahead = moment - (before + after) / 2
        if abs(ahead) > CLOCK_TOLERANCE_SECONDS + (after - before) / 2:
            raise UnusableStatsError(f"its clock is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} ours")
        return ahead

    def _made(self, expected: frozenset[str], known_at: float, ahead: float, envoys: Mapping[str, Scraped]) -> Sample:
        """Return the sample; `known_at` is the time of the query by our clock."""
        scraped = self._scraped_at(envoys, ahead)
        readings: dict[str, EnvoyReading] = {}
        missing: dict[str, str] = {}
        for node in sorted(expected):
            envoy, at = envoys.get(node), scraped.get(node)
            if envoy is None:
                missing[node] = "Prometheus has no recent scrape of it"
            elif envoy.invalid:
                missing[node] = f"Prometheus has {envoy.invalid} of it, and that is not a number"
            elif at is None or envoy.uptime is None:
                missing[node] = f"Prometheus lacks {UPTIME} of it"
            elif absent := envoy.absent():
                missing[node] = absent
            elif (age := known_at - at) > 2 * self._settings.scrape_interval:
                every = self._settings.scrape_interval
                missing[node] = f"Prometheus scraped it {age:.0f} s ago; expected every {every:g} s"
            else:
                readings[node] = EnvoyReading(envoy.uptime, envoy.counters(), at)
        taken_at = min((scraped[node] for node in readings), default=known_at)
        return Sample(taken_at, readings, missing)

    def _scraped_at(self, envoys: Mapping[str, Scraped], ahead: float) -> dict[str, float]:
        """Return the time of each Envoy's latest scrape by our clock.

        A scrape keeps its first converted time: each measurement of the clocks' difference varies, and one scrape must
        not look like two.
        """
        before = self._scrapes
        self._scrapes = {
            node: before[node] if node in before and before[node][0] == envoy.at else (envoy.at, envoy.at - ahead)
            for node, envoy in envoys.items()
            if envoy.at is not None
        }
        return {node: ours for node, (_, ours) in self._scrapes.items()}


def _failed(asked_at: float, expected: frozenset[str], error: str) -> Sample:
    """Return a sample without readings, for an error of Prometheus and not of an Envoy."""
    return Sample(asked_at, {}, dict.fromkeys(expected, f"Prometheus: {error}"), source_failed=True)
