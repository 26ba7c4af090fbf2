"""The metrics of one reconciler: notified of events, rendered at each scrape.

Between scrapes, events are only counted. What does not belong to one service (samples, xDS, holders) is read at the
moment of a scrape. The metrics of services are rendered in a thread, so that a scrape of 10,000 services does not block
the event loop. A removed service has no metrics.
"""

from __future__ import annotations

import asyncio
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import prometheus_client
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from reconciler.core.reasons import UNKNOWN_REASONS, Reason, Unknown
from reconciler.core.record import Record, State, Transition
from reconciler.core.traffic import Sample
from reconciler.metrics import definitions
from reconciler.metrics.definitions import Family
from reconciler.metrics.service_counters import ServiceCounters
from reconciler.metrics.services import Page, ServiceSource
from reconciler.ports.holders import HoldStatus
from xds.server import Node

MAX_ENVOYS = 4096
"""Node ids with counted acknowledgements, above which those of disconnected Envoys are forgotten."""
OPENMETRICS = "application/openmetrics-text"
LAG_INTERVAL_SECONDS = 1.0
WAKE_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
COUNT_BUCKETS = (0, 1, 2, 5, 10, 100, 1_000, 10_000)
LAG_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
MAX_EXEMPLAR = 128
"""The maximum length of an exemplar's label names and values in OpenMetrics."""


def acceptable(accept: str) -> str:
    """Return an `Accept` header that prometheus-client can parse: its errors would repeat the client's header."""
    types = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    return f"{OPENMETRICS}; version=1.0.0" if OPENMETRICS in types else ""


@dataclass(frozen=True, slots=True)
class Sources:
    """Functions that return present values. Called on the event loop, so they must be fast."""

    services: Callable[[], Mapping[str, ServiceSource]]
    envoys: Callable[[], Mapping[str, Node]]
    holders: Callable[[], Sequence[str]]
    """Holders that are connected to this replica."""
    all_holders: Callable[[], Iterable[str]]
    """Holders that are connected to any replica; `held` includes all of them."""
    ready: Callable[[], bool]
    leads: Callable[[], bool]
    """True if this replica may put services to sleep."""
    now: Callable[[], float] = time.time
    """Seconds since the epoch."""
    ticks: Callable[[], float] = time.monotonic
    """Seconds of a monotonic clock."""
    refused_streams: Callable[[], Mapping[tuple[str, ...], int]] = dict
    """Streams on the gRPC port that were refused, by kind and gRPC status."""
    plaintext: Callable[[], bool] = lambda: False
    """True if the gRPC port is open without mutual TLS."""
    expiries: Callable[[], Mapping[str, float]] = dict
    """Ends of validity of certificates, in seconds since the epoch, by certificate."""
    records_failing: Callable[[], bool | None] = lambda: None
    """True if records cannot be written to their file; None without a file."""


class _Samples:
    """Counters and the latest results of samples."""

    def __init__(self) -> None:
        self.taken = 0
        self.unknown = Counter(dict.fromkeys(UNKNOWN_REASONS, 0))
        self.latest: float | None = None
        """Time of the latest sample with an Envoy in it."""
        self.latest_complete: float | None = None
        self.complete = False
        self.cause: Reason | None = None
        """The code of the latest sample's unknown usage."""
        self._seen: float | None = None

    def saw(self, sample: Sample, unknown: Unknown | None) -> None:
        """Record a sample and the cause if usage is unknown; ignore a sample that was recorded before."""
        if sample.envoys and sample.taken_at == self._seen:
            return
        self.taken += 1
        self._seen, self.complete = sample.taken_at, unknown is None
        if sample.envoys:
            self.latest = sample.taken_at
        self.cause = unknown.code if unknown else None
        if unknown is None:
            self.latest_complete = sample.taken_at
        else:
            self.unknown[unknown.code] += 1


class _Present(Collector):
    """A collector of prometheus-client. `acks` are by Envoy, `calls` to the API server by method and code."""

    def __init__(
        self, sources: Sources, samples: _Samples, acks: Mapping[str, int], calls: Mapping[tuple[str, ...], int]
    ) -> None:
        self._sources, self._samples, self._acks, self._calls = sources, samples, acks, calls

    def describe(self) -> Iterable[Metric]:
        """Return nothing: registration must not read the sources."""
        return []

    def collect(self) -> Iterable[Metric]:
        sources = self._sources
        yield from self._of_samples()
        yield from self._of_envoys()
        yield _single(definitions.HOLDERS, len(sources.holders()))
        yield _single(definitions.SERVICES, len(sources.services()))
        yield _single(definitions.READY, sources.ready())
        yield _single(definitions.RECORDS_FAILING, sources.records_failing())
        yield _single(definitions.LEADER, sources.leads())
        yield _family(definitions.API_CALLS, self._calls)
        yield _family(definitions.REFUSED_STREAMS, sources.refused_streams())
        yield _single(definitions.PLAINTEXT, sources.plaintext())
        yield _family(definitions.CERTIFICATE_EXPIRY, {(name,): until for name, until in sources.expiries().items()})
        yield _family(definitions.BUILD, {(version("zenvoy"), platform.python_version()): 1})

    def _of_samples(self) -> Iterable[Metric]:
        samples = self._samples
        yield _single(definitions.SAMPLES, samples.taken)
        yield _family(definitions.SAMPLES_UNKNOWN, {(cause,): count for cause, count in samples.unknown.items()})
        takes = self._sources.leads()
        yield _single(definitions.SAMPLE_COMPLETE, samples.complete if takes else None)
        yield _family(
            definitions.SAMPLE_UNKNOWN, {(cause,): cause is samples.cause for cause in UNKNOWN_REASONS if takes}
        )
        yield _single(definitions.SAMPLE_TAKEN, samples.latest if takes else None)
        yield _single(definitions.SAMPLE_COMPLETE_TAKEN, samples.latest_complete if takes else None)

    def _of_envoys(self) -> Iterable[Metric]:
        envoys = self._sources.envoys()
        acked: dict[tuple[str, ...], float] = {
            (name, type_url.rpartition(".")[2], version): 1.0
            for name, envoy in envoys.items()
            for type_url, version in envoy.versions.items()
            # Without endpoints, whose version changes with each wake.
            if version and not type_url.endswith(".ClusterLoadAssignment")
        }
        yield _single(definitions.ENVOYS, len(envoys))
        yield _family(definitions.ENVOY_CONNECTED, {(name,): envoy.since for name, envoy in envoys.items()})
        yield _family(definitions.ACKED, acked)
        yield _family(definitions.ACKS, {(name,): self._acks.get(name, 0) for name in envoys})
        yield _family(definitions.NACKS, {(name,): envoy.nacks for name, envoy in envoys.items()})


class Metrics:
    """The counters, and the answers to scrapes. Everything except rendering runs on the event loop."""

    def __init__(self, sources: Sources) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self._sources = sources
        self._counters: dict[str, ServiceCounters] = {}
        self._holders: frozenset[str] = frozenset()
        self._samples = _Samples()
        self._acks: Counter[str] = Counter()
        self._calls: Counter[tuple[str, ...]] = Counter()
        self._registry = CollectorRegistry()
        self._wakes = self._histogram(definitions.WAKE, WAKE_BUCKETS)
        self._parts = self._histogram(definitions.WAKE_PART, WAKE_BUCKETS)
        self._requests = self._histogram(definitions.WAKE_REQUESTS, COUNT_BUCKETS)
        self._connections = self._histogram(definitions.WAKE_CONNECTIONS, COUNT_BUCKETS)
        self._lag = self._histogram(definitions.LOOP_LAG, LAG_BUCKETS)
        self._registry.register(_Present(sources, self._samples, self._acks, self._calls))
        prometheus_client.ProcessCollector(registry=self._registry)
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start to measure the lag of the running event loop: the delay of a timer that is due each second."""
        loop = asyncio.get_running_loop()
        due = loop.time() + LAG_INTERVAL_SECONDS
        self._timer = loop.call_at(due, self._ring, due)

    def close(self) -> None:
        if self._timer:
            self._timer.cancel()

    def _ring(self, due: float) -> None:
        self._lag.observe(max(0.0, asyncio.get_running_loop().time() - due))
        self.start()

    def _histogram(self, family: Family, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(family.name, family.help, family.labels, buckets=buckets, registry=self._registry)

    def lead(self) -> None:
        """Reset the counters of services: this replica now leads, and another one counted before."""
        self._counters.clear()
        for name in self._sources.services():
            self._known(name)

    def configured(self) -> None:
        """Forget removed services."""
        for name in self._counters.keys() - self._sources.services().keys():
            del self._counters[name]

    def ran(self, service: str) -> None:
        """Note that a service was observed; its counters begin with the first observation."""
        if found := self._known(service):
            self._sleeps(*found)

    def held(self, held: HoldStatus) -> None:
        if found := self._known(held.service):
            holders = frozenset(self._sources.all_holders())
            if holders != self._holders:
                self._holders = holders  # one object for all services, of which there may be many
            found[1].saw_held(held, self._holders, self._sources.ticks())

    def saw(self, transition: Transition) -> None:
        found = self._known(transition.service)
        if found is None:
            return
        service, counters, record = found
        counters.saw_transition(transition, record, service.requests, service.spec.wake_timeout)
        self._sleeps(service, counters, record)
        if record.state is State.ScaledToZero and counters.before_wake:
            (requests, released), exemplar = counters.before_wake, _exemplar(transition.service)
            self._requests.observe(service.requests - requests, exemplar)
            self._connections.observe(counters.released.total - released, exemplar)

    def woke(self, service: str, total: float | None, parts: Mapping[str, float]) -> None:
        """Record a completed wake; `parts` are seconds by name, in order."""
        if total is not None:
            exemplar = _exemplar(service)
            self._wakes.observe(total, exemplar)
            for part, seconds in parts.items():
                self._parts.labels(part).observe(seconds, exemplar)
            if counters := self._counters.get(service):
                counters.last_wake = (total, parts)

    def sampled(self, sample: Sample, unknown: Unknown | None) -> None:
        """Record a sample; `unknown` is the cause if usage is unknown."""
        self._samples.saw(sample, unknown)

    def acked(self, envoy: str) -> None:
        """Count an acknowledgement of endpoints by an Envoy."""
        if len(self._acks) >= MAX_ENVOYS and envoy not in self._acks:
            self._forget_acks()
        self._acks[envoy] += 1

    def called(self, method: str, code: str) -> None:
        """Count a call to the API server."""
        self._calls[method, code] += 1

    async def scrape(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics in the format that the `Accept` header requests, and the content type."""
        encode, content_type = choose_encoder(acceptable(accept))
        self._forget_acks()
        rest = encode(self._registry)
        present = list(self._sources.services().items())
        openmetrics = content_type.startswith(OPENMETRICS)
        return await asyncio.to_thread(self._write, present, openmetrics, rest), content_type

    def _write(self, present: list[tuple[str, ServiceSource]], openmetrics: bool, rest: bytes) -> bytes:
        """Render all metrics. Runs in a thread, and changes nothing."""
        page = Page(self._sources.now(), self._sources.ticks())
        for name, service in present:
            page.add(name, service, self._counters.get(name))
        return page.text(openmetrics, rest)

    def _forget_acks(self) -> None:
        for envoy in self._acks.keys() - self._sources.envoys().keys():
            del self._acks[envoy]

    def _known(self, name: str) -> tuple[ServiceSource, ServiceCounters, Record] | None:
        """Return a service, its counters, which are created if absent, and its record; None without a record."""
        service = self._sources.services().get(name)
        if service is None or service.record is None:
            return None
        counters = self._counters.get(name)
        if counters is None:
            counters = self._counters[name] = ServiceCounters.of(
                service.record, service.asks, self._sources.ticks(), service.recovers
            )
        return service, counters, service.record

    def _sleeps(self, service: ServiceSource, counters: ServiceCounters, record: Record) -> None:
        """Start or stop to count the replicas that a sleeping service does not run."""
        asleep = record.state is State.ScaledToZero
        counters.sleeps(record.replicas if asleep else 0, service.asks, self._sources.ticks())


def _exemplar(service: str) -> dict[str, str] | None:
    return {"service": service} if len("service") + len(service) <= MAX_EXEMPLAR else None


def _single(family: Family, value: float | None) -> Metric:
    return _family(family, {} if value is None else {(): value})


def _family(family: Family, values: Mapping[tuple[str, ...], float]) -> Metric:
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    made = kind(family.name, family.help, labels=family.labels)
    for labels, value in values.items():
        made.add_metric(labels, value)
    return made
