"""Samples from Prometheus, which scrapes Envoy. Counterpart: `reconciler.ports.traffic`.

Raw counters, one query for all services: differences are taken by us, since `increase()` does not see a counter's first
appearance, which is traffic. When a scrape was made is translated to our own clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from math import isfinite

from reconciler.core.traffic import EnvoyReading, Sample
from reconciler.envoy.prometheus.client import Client
from reconciler.envoy.prometheus.rows import QUERY, UPTIME, Scraped, Unusable, read
from reconciler.envoy.prometheus.settings import PrometheusSettings
from reconciler.threads import in_thread

CLOCK_TOLERANCE_SECONDS = 1.0
"""Beyond this, Prometheus' clock and ours disagree too much to say what a scrape had seen."""


class PrometheusStats:
    """Takes samples; `now` is our clock, `expected` names the Envoys that have to be in them."""

    def __init__(
        self,
        settings: PrometheusSettings,
        now: Callable[[], float],
        expected: Callable[[], frozenset[str]],
        service_of: Callable[[str], str],
    ) -> None:
        self._settings, self._now, self._expected, self._service_of = settings, now, expected, service_of
        self._scrapes: dict[str, tuple[float, float]] = {}
        """By Envoy, when it was scraped last: by Prometheus' clock, and by ours."""
        self._client = Client(settings)
        self._asking: asyncio.Future[Sample] | None = None

    async def close(self) -> None:
        self._client.close()

    async def sample(self) -> Sample:
        """In a thread, since the client blocks: one at a time, however long it hangs."""
        asked_at, expected = self._now(), self._expected()
        try:
            async with asyncio.timeout(self._settings.most):
                if self._asking:  # whoever waited for this has given up; who was expected then may be others now
                    await asyncio.wait({self._asking})
                self._asking = in_thread(lambda: self._sample(expected), "prometheus")
                return await asyncio.shield(self._asking)
        except TimeoutError:
            return _failed(asked_at, expected, f"its answer is not whole after {self._settings.most:g} s")

    def _sample(self, expected: frozenset[str]) -> Sample:
        """In the thread: who is expected was asked before, on the loop, where Envoys come and go."""
        asked_at = self._now()
        try:
            ahead = self._clock_ahead()
            known_at = self._now()  # how long a large answer takes says nothing of how well Prometheus scrapes
            rows = self._client.ask(QUERY, len(expected))
            return self._made(expected, known_at, ahead, read(rows, expected, self._service_of))
        except Unusable as error:
            return _failed(asked_at, expected, str(error))
        except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError) as error:
            return _failed(asked_at, expected, f"its answer cannot be understood ({type(error).__name__})")

    def _clock_ahead(self) -> float:
        """Seconds by which Prometheus' clock is ahead of ours. Raises `Unusable` beyond the tolerance."""
        before = self._now()
        moment = float(self._client.ask("time()")[1])
        after = self._now()
        if not isfinite(moment):
            raise Unusable("its time is not a number")
        ahead = moment - (before + after) / 2
        if abs(ahead) > CLOCK_TOLERANCE_SECONDS + (after - before) / 2:
            raise Unusable(f"its clock is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} ours")
        return ahead

    def _made(self, expected: frozenset[str], known_at: float, ahead: float, envoys: Mapping[str, Scraped]) -> Sample:
        """The sample; `known_at` is when Prometheus was asked for it, by our clock."""
        scraped = self._scraped_at(envoys, ahead)
        readings: dict[str, EnvoyReading] = {}
        missing: dict[str, str] = {}
        for node in sorted(expected):
            envoy, at = envoys.get(node), scraped.get(node)
            if envoy is None:
                missing[node] = "Prometheus has no recent scrape of it"
            elif envoy.wrong:
                missing[node] = f"Prometheus has {envoy.wrong} of it, and that is not a number"
            elif at is None or envoy.uptime is None:
                missing[node] = f"Prometheus lacks {UPTIME} of it"
            elif why := envoy.lacks():
                missing[node] = why
            elif (age := known_at - at) > 2 * self._settings.scrape_interval:
                every = self._settings.scrape_interval
                missing[node] = f"Prometheus scraped it {age:.0f} s ago, and should every {every:g} s"
            else:
                readings[node] = EnvoyReading(envoy.uptime, envoy.counters(), at)
        taken_at = min((scraped[node] for node in readings), default=known_at)
        return Sample(taken_at, readings, missing)

    def _scraped_at(self, envoys: Mapping[str, Scraped], ahead: float) -> dict[str, float]:
        """When each Envoy was scraped last, by our clock.

        A scrape keeps the time that it was given when it was first seen: the clocks' difference is never measured twice
        the same, and one scrape must not look like two.
        """
        before = self._scrapes
        self._scrapes = {
            node: before[node] if node in before and before[node][0] == envoy.at else (envoy.at, envoy.at - ahead)
            for node, envoy in envoys.items()
            if envoy.at is not None
        }
        return {node: ours for node, (_, ours) in self._scrapes.items()}


def _failed(asked_at: float, expected: frozenset[str], why: str) -> Sample:
    """Prometheus is to blame, and no Envoy."""
    return Sample(asked_at, {}, dict.fromkeys(expected, f"Prometheus: {why}"), source_failed=True)
