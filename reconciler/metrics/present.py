"""The metrics that are read at the moment of a scrape and do not belong to one service: samples, xDS, holders."""

from __future__ import annotations

import platform
from collections import Counter as Counts
from collections.abc import Iterable, Mapping
from importlib.metadata import version

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from reconciler.core.reasons import UNKNOWN_REASONS, Reason, Unknown
from reconciler.core.traffic import Sample
from reconciler.metrics import definitions
from reconciler.metrics.definitions import Family
from reconciler.metrics.sources import Sources


class Samples:
    """Counters and the latest results of samples."""

    def __init__(self) -> None:
        self.taken = 0
        self.unknown = Counts(dict.fromkeys(UNKNOWN_REASONS, 0))
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


class Present(Collector):
    """A collector of prometheus-client. `acks` are by Envoy, `calls` to the API server by method and code."""

    def __init__(
        self, sources: Sources, samples: Samples, acks: Mapping[str, int], calls: Mapping[tuple[str, ...], int]
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


def _single(family: Family, value: float | None) -> Metric:
    return _family(family, {} if value is None else {(): value})


def _family(family: Family, values: Mapping[tuple[str, ...], float]) -> Metric:
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    made = kind(family.name, family.help, labels=family.labels)
    for labels, value in values.items():
        made.add_metric(labels, value)
    return made
