"""Samples from Prometheus, which scrapes Envoy. Counterpart: `reconciler.engine.sampling`.

One query returns the raw counters of all services. Differences are computed here, since `increase()` ignores the first
appearance of a counter, which is traffic. Prometheus evaluates the query at one instant, so an Envoy's counters, its
uptime and the time of their scrape belong together. That time is converted to our own clock. A label that the bootstrap
adds to all series identifies the Envoy.

An absent series means a service that was never used, but a relabelling rule of Prometheus can also drop it. Therefore
each figure must be present for the ADS cluster, which every connected Envoy uses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from reconciler.concurrency import in_thread
from reconciler.core.traffic import Counters, EnvoyReading, Sample
from reconciler.envoy import admin_stats
from reconciler.envoy.admin_stats import UnusableStatsError
from reconciler.envoy.prometheus.client import Client
from reconciler.envoy.prometheus.settings import PrometheusSettings
from xds.bootstrap.document import ADS_CLUSTER, NODE_TAG
from xds.names import service_name

FIELDS = {f"envoy_cluster_{name}": field for name, field in admin_stats.FIELDS.items()}
UPTIME = "envoy_server_uptime"
CLUSTER_TAG = "envoy_cluster_name"
FIGURE_LIMIT = 2.0**63
"""Exceeds every valid figure; NaN and infinity fail the comparison."""
SCRAPED = "zenvoy_scraped"
"""The label of rows whose value is the time of a scrape. It makes them distinct: `or` drops rows with equal labels."""
QUERY = (
    '{__name__=~"envoy_cluster_upstream_((rq|cx)_(total|active)|cx_(rx|tx)_bytes_total)|envoy_server_uptime",'
    f'{NODE_TAG}!=""}} or label_replace(timestamp({UPTIME}{{{NODE_TAG}!=""}}), "{SCRAPED}", "at", "", "")'
)
CLOCK_TOLERANCE_SECONDS = 1.0
"""Beyond this difference between the clocks, the time of a scrape is too uncertain."""


@dataclass(slots=True)
class _Scraped:
    """The latest scrape of one Envoy."""

    uptime: float | None = None
    at: float | None = None
    """The time of the scrape by Prometheus' clock, in seconds since the epoch."""
    services: dict[str, dict[str, int]] = field(default_factory=dict)
    ads_figures: set[str] = field(default_factory=set)
    """The figures that are present for the ADS cluster."""
    unlabeled: str | None = None
    """A figure without the label that names its cluster."""
    invalid: str | None = None
    """A figure whose value is not a valid number."""

    def counters(self) -> dict[str, Counters]:
        return {service: Counters(**figures) for service, figures in self.services.items()}

    def absent(self) -> str | None:
        """Describe the data that is needed but absent, for display."""
        if self.unlabeled:
            return f"Prometheus lacks the label {CLUSTER_TAG} in {self.unlabeled} of it"
        absent = [name for name in FIELDS if name not in self.ads_figures]
        return f"Prometheus lacks {', '.join(absent)} of it" if absent else None


class PrometheusStats:
    """A source of samples: Prometheus. `expected` returns the Envoys that must be in each sample."""

    def __init__(
        self, settings: PrometheusSettings, now: Callable[[], float], expected: Callable[[], frozenset[str]]
    ) -> None:
        self._settings, self._now, self._expected = settings, now, expected
        self._scrapes: dict[tuple[str, float], float] = {}
        """By Envoy and the time of its latest scrape by Prometheus' clock, that time by ours."""
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
            return self._made(expected, known_at, ahead, _read(rows, expected))
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

    def _made(self, expected: frozenset[str], known_at: float, ahead: float, envoys: Mapping[str, _Scraped]) -> Sample:
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

    def _scraped_at(self, envoys: Mapping[str, _Scraped], ahead: float) -> dict[str, float]:
        """Return the time of each Envoy's latest scrape by our clock.

        A scrape keeps its first converted time: each measurement of the clocks' difference varies, and one scrape must
        not look like two.
        """
        present = [(node, envoy.at) for node, envoy in envoys.items() if envoy.at is not None]
        self._scrapes = {(node, at): self._scrapes.get((node, at), at - ahead) for node, at in present}
        return {node: ours for (node, _), ours in self._scrapes.items()}


def _failed(asked_at: float, expected: frozenset[str], error: str) -> Sample:
    """Return a sample without readings, for an error of Prometheus and not of an Envoy."""
    return Sample(asked_at, {}, dict.fromkeys(expected, f"Prometheus: {error}"), source_failed=True)


def _read(rows: Iterable[Mapping[str, Any]], expected: Collection[str]) -> dict[str, _Scraped]:
    """Return the scrape of each expected Envoy. Raises Python's own errors for malformed rows.

    Rows of other Envoys are ignored: any target may have this label. If two jobs scrape one Envoy, the older scrape
    counts, which has the lower uptime.
    """
    envoys: dict[str, _Scraped] = {}
    for row in rows:
        labels, value = row["metric"], float(row["value"][1])
        node = labels[NODE_TAG]
        if node not in expected:
            continue
        envoy = envoys.get(node) or envoys.setdefault(node, _Scraped())
        if not 0 <= value < FIGURE_LIMIT:
            figure = labels.get("__name__")
            envoy.invalid = figure if figure in (*FIELDS, UPTIME) else "the time of a scrape"
            continue
        if SCRAPED in labels:
            envoy.at = value if envoy.at is None else min(envoy.at, value)
            continue
        name = labels["__name__"]
        if name == UPTIME:
            envoy.uptime = value if envoy.uptime is None else min(envoy.uptime, value)
        else:
            _count(envoy, name, labels.get(CLUSTER_TAG), int(value))
    return envoys


def _count(envoy: _Scraped, name: str, cluster: str | None, value: int) -> None:
    figure = FIELDS[name]
    if not cluster:
        envoy.unlabeled = name
    elif cluster == ADS_CLUSTER:
        envoy.ads_figures.add(name)
    else:
        counted = envoy.services.setdefault(service_name(cluster), {})
        counted[figure] = counted.get(figure, 0) + value
