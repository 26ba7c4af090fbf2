"""What the reconciler tells Prometheus, by prometheus-client; read from the engine's services at each scrape.

Names are the design's words. A service that is no more vanishes. Cardinality: five state series a service, and a few
more; transitions by from, to and event, which the machine's table bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from reconciler.core.record import State
from reconciler.ports.operations import View
from reconciler.ports.transitions import Transition

BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Services(Collector):
    """The present services as gauges and counters."""

    def __init__(self, views: Callable[[], Iterable[View]], envoys: Callable[[], Iterable[View]]) -> None:
        self._views, self._envoys = views, envoys

    def collect(self) -> Iterable[Metric]:
        state = GaugeMetricFamily(
            "zenvoy_service_state", "1 for the state that the service is in.", None, ["service", "state"]
        )
        stalled = GaugeMetricFamily("zenvoy_service_stalled", "1 while a wake is not getting on.", None, ["service"])
        held = GaugeMetricFamily("zenvoy_service_held", "Connections that wait.", None, ["service"])
        relayed = GaugeMetricFamily("zenvoy_service_relayed", "Connections through a holder.", None, ["service"])
        requests = CounterMetricFamily(
            "zenvoy_service_requests", "Requests, or connections, by Envoy's count.", None, ["service"]
        )
        for service in self._views():
            name = [service["name"]]
            for one in State:
                state.add_metric([*name, one.value], float(service["state"] == one.value))
            stalled.add_metric(name, float(service["stalled"] is not None))
            requests.add_metric(name, service["requests"])
            for family, value in ((held, service["held"]), (relayed, service["relayed"])):
                family.add_metric(name, float("nan") if value is None else value)
        yield from (state, stalled, held, relayed, requests)
        yield from self._collect_envoys()

    def _collect_envoys(self) -> Iterable[Metric]:
        nacks = CounterMetricFamily("zenvoy_xds_nacks", "Configurations that an Envoy rejected.", None, ["envoy"])
        connected = GaugeMetricFamily("zenvoy_xds_connected", "1 for each connected Envoy.", None, ["envoy"])
        for envoy in self._envoys():
            nacks.add_metric([envoy["id"]], envoy["nacks"])
            connected.add_metric([envoy["id"]], 1)
        yield from (nacks, connected)


class Metrics:
    """All metrics of one reconciler."""

    def __init__(self, views: Callable[[], Iterable[View]], envoys: Callable[[], Iterable[View]]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(Services(views, envoys))
        self._transitions = Counter(
            "zenvoy_transitions", "Changes of a state.", ["source", "target", "event"], registry=self._registry
        )
        self._wakes = Histogram(
            "zenvoy_wake_seconds", "How long parts of wakes took.", ["part"], buckets=BUCKETS, registry=self._registry
        )

    def saw(self, transition: Transition) -> None:
        self._transitions.labels(transition.source.value, transition.target.value, transition.event).inc()

    def woke(self, parts: Mapping[str, Any]) -> None:
        """A wake is over; `parts` are seconds by name."""
        for part, seconds in parts.items():
            self._wakes.labels(part).observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self._registry)
