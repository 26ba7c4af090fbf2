"""Samples from Prometheus, which scrapes Envoy. Counterpart: `reconciler.ports.traffic`; client: prometheus-api-client.

Raw counters, one query for all services: differences are taken by us, since `increase()` does not see a counter's first
appearance, which is traffic. Which Envoy a series is from is told by the label that the bootstrap makes Envoy put on
all of them. When a scrape was made is asked *before* its values, so that a scrape in between can only add traffic, and
is translated to our own clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import requests
from prometheus_api_client import PrometheusConnect
from prometheus_api_client.exceptions import PrometheusApiClientException
from urllib3.util.retry import Retry

from reconciler.adapters.prometheus.settings import PrometheusSettings
from reconciler.core.traffic import Counters, EnvoyReading, Sample

NODE_LABEL = "zenvoy_node"
FIELDS = {
    "envoy_cluster_upstream_rq_total": "requests",
    "envoy_cluster_upstream_rq_active": "active_requests",
    "envoy_cluster_upstream_cx_total": "connections",
    "envoy_cluster_upstream_cx_active": "active_connections",
    "envoy_cluster_upstream_cx_rx_bytes_total": "bytes",
    "envoy_cluster_upstream_cx_tx_bytes_total": "bytes",
}
UPTIME = "envoy_server_uptime"
SCRAPED_AT = f"timestamp({UPTIME})"
COUNTERS = (
    '{__name__=~"envoy_cluster_upstream_((rq|cx)_(total|active)|cx_(rx|tx)_bytes_total)|envoy_server_uptime",'
    f'{NODE_LABEL}!=""}}'
)
CLOCK_TOLERANCE_SECONDS = 1.0
"""Beyond this, Prometheus' clock and ours disagree too much to say what a scrape had seen."""


class Unusable(Exception):
    """Prometheus answered, but not with what a judgement could stand on."""


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
        session = requests.Session()
        session.verify = settings.ca_file or True
        session.hooks["response"].append(_no_warnings)
        once = Retry(0, read=False)  # a time-out stays a time-out
        self._prometheus = PrometheusConnect(settings.url, session=session, timeout=settings.timeout, retry=once)

    async def close(self) -> None:
        self._prometheus.close()

    async def sample(self) -> Sample:
        """In a thread, since the client blocks; `timeout` bounds each of its requests."""
        return await asyncio.to_thread(self._sample, self._expected())

    def _sample(self, expected: frozenset[str]) -> Sample:
        """In the thread: who is expected was asked before, on the loop, where Envoys come and go."""
        asked_at = self._now()
        try:
            self._prometheus.headers = self._headers()
            ahead = self._clock_ahead()
            scraped = self._scraped_at(ahead)
            known_at = self._now()  # how long a large answer takes says nothing of how well Prometheus scrapes
            return self._made(expected, scraped, known_at, self._prometheus.custom_query(COUNTERS))
        except (requests.RequestException, PrometheusApiClientException, Unusable, OSError) as error:
            why = f"Prometheus: {_short(error)}"
        except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError) as error:
            why = f"Prometheus: its answer cannot be understood ({error!r})"
        return Sample(asked_at, {}, dict.fromkeys(expected, why), source_failed=True)

    def _headers(self) -> dict[str, str]:
        headers = dict(self._settings.headers or {})
        if self._settings.bearer_token_file:
            headers["Authorization"] = f"Bearer {Path(self._settings.bearer_token_file).read_text().strip()}"
        return headers

    def _clock_ahead(self) -> float:
        """Seconds by which Prometheus' clock is ahead of ours. Raises `Unusable` beyond the tolerance."""
        before = self._now()
        moment = float(self._prometheus.custom_query("time()")[1])
        after = self._now()
        ahead = moment - (before + after) / 2
        if abs(ahead) > CLOCK_TOLERANCE_SECONDS + (after - before) / 2:
            raise Unusable(f"its clock is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} ours")
        return ahead

    def _scraped_at(self, ahead: float) -> dict[str, float]:
        """When each Envoy was scraped last, by our clock.

        A scrape keeps the time that it was given when it was first seen: the clocks' difference is never measured twice
        the same, and one scrape must not look like two.
        """
        rows = self._prometheus.custom_query(SCRAPED_AT)
        moments = {_node(row): float(row["value"][1]) for row in rows if NODE_LABEL in row["metric"]}
        before = self._scrapes
        self._scrapes = {
            node: before[node] if node in before and before[node][0] == moment else (moment, moment - ahead)
            for node, moment in moments.items()
        }
        return {node: ours for node, (_, ours) in self._scrapes.items()}

    def _made(
        self, expected: frozenset[str], scraped: Mapping[str, float], known_at: float, rows: list[dict[str, Any]]
    ) -> Sample:
        """The sample; `known_at` is when Prometheus said when it had `scraped`, by our clock."""
        counted = _counted(rows, self._service_of)
        oldest = 2 * self._settings.scrape_interval
        readings: dict[str, EnvoyReading] = {}
        missing: dict[str, str] = {}
        for node in sorted(expected):
            uptime, services = counted.get(node, (None, {}))
            if node not in scraped or uptime is None:
                missing[node] = "Prometheus has no recent scrape of it"
            elif known_at - scraped[node] > oldest:
                missing[node] = (
                    f"Prometheus scraped it {known_at - scraped[node]:.0f} s ago, and should every {oldest / 2:g} s"
                )
            else:
                readings[node] = EnvoyReading(uptime, services, scraped[node])
        taken_at = min((scraped[node] for node in readings), default=known_at)
        return Sample(taken_at, readings, missing)


def _no_warnings(response: requests.Response, *_: Any, **__: Any) -> None:
    """Partial data comes with warnings, which the client drops."""
    if response.status_code == 200 and b'"warnings":' in response.content[-8192:]:
        raise Unusable(f"it warns: {', '.join(response.json().get('warnings', []))}")


def _node(row: Mapping[str, Any]) -> str:
    return str(row["metric"][NODE_LABEL])


def _counted(
    rows: list[dict[str, Any]], service_of: Callable[[str], str]
) -> dict[str, tuple[float | None, dict[str, Counters]]]:
    """By Envoy: its uptime, and each service's counters. Raises `Unusable` for a value that is no number."""
    uptimes: dict[str, float] = {}
    figures: dict[str, dict[str, dict[str, int]]] = {}
    for row in rows:
        labels, value = row["metric"], float(row["value"][1])
        node, name = labels[NODE_LABEL], labels["__name__"]
        if value != value:
            raise Unusable(f"{name} of Envoy {node} is not a number")
        services = figures.setdefault(node, {})
        if name == UPTIME:
            uptimes[node] = value
        elif cluster := labels.get("envoy_cluster_name"):
            service = services.setdefault(service_of(cluster), {})
            field = FIELDS[name]
            service[field] = service.get(field, 0) + int(value)
    return {
        node: (uptimes.get(node), {name: Counters(**values) for name, values in services.items()})
        for node, services in figures.items()
    }


def _short(error: Exception) -> str:
    if isinstance(error, requests.Timeout):
        return "it did not answer in time"
    if isinstance(error, requests.ConnectionError):
        return "it cannot be reached"
    return str(error)[:200]
