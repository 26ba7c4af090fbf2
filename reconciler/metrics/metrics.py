"""The metrics of one reconciler: notified of events, rendered at each scrape.

Between scrapes, events are only counted. The metrics of services are rendered in a thread, so that a scrape of 10,000
services does not block the event loop. A removed service has no metrics.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from prometheus_client.exposition import choose_encoder

from reconciler.core.reasons import Unknown
from reconciler.core.record import Record, State, Transition
from reconciler.core.traffic import Sample
from reconciler.metrics.registry import Registry
from reconciler.metrics.service_counters import ServiceCounters
from reconciler.metrics.services import Page
from reconciler.metrics.sources import ServiceSource, Sources
from reconciler.ports.holders import HoldStatus

MAX_ENVOYS = 4096
"""Node ids with counted acknowledgements, above which those of disconnected Envoys are forgotten."""
OPENMETRICS = "application/openmetrics-text"
LAG_INTERVAL_SECONDS = 1.0


def acceptable(accept: str) -> str:
    """Return an `Accept` header that prometheus-client can parse: its errors would repeat the client's header."""
    types = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    return f"{OPENMETRICS}; version=1.0.0" if OPENMETRICS in types else ""


class Metrics:
    """The counters, and the answers to scrapes. Everything except rendering runs on the event loop."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._counters: dict[str, ServiceCounters] = {}
        self._holders: frozenset[str] = frozenset()
        self._registry = Registry(sources)
        self._lag = LoopLag(self._registry.lag.observe)

    def start(self) -> None:
        """Start to measure the lag of the running event loop."""
        self._lag.start()

    def close(self) -> None:
        self._lag.close()

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
            requests, released = counters.before_wake
            self._registry.served(transition.service, service.requests - requests, counters.released.total - released)

    def woke(self, service: str, total: float | None, parts: Mapping[str, float]) -> None:
        """Record a completed wake; `parts` are seconds by name, in order."""
        if total is not None:
            self._registry.woke(service, total, parts)
            if counters := self._counters.get(service):
                counters.last_wake = (total, parts)

    def sampled(self, sample: Sample, unknown: Unknown | None) -> None:
        """Record a sample; `unknown` is the cause if usage is unknown."""
        self._registry.samples.saw(sample, unknown)

    def acked(self, envoy: str) -> None:
        """Count an acknowledgement of endpoints by an Envoy."""
        acks = self._registry.acks
        if len(acks) >= MAX_ENVOYS and envoy not in acks:
            for gone in acks.keys() - self._sources.envoys().keys():
                del acks[gone]
        acks[envoy] += 1

    def called(self, method: str, code: str) -> None:
        """Count a call to the API server."""
        self._registry.calls[method, code] += 1

    async def scrape(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics in the format that the `Accept` header requests, and the content type."""
        encode, content_type = choose_encoder(acceptable(accept))
        for envoy in self._registry.acks.keys() - self._sources.envoys().keys():
            del self._registry.acks[envoy]
        rest = self._registry.text(encode)
        present = list(self._sources.services().items())
        openmetrics = content_type.startswith(OPENMETRICS)
        return await asyncio.to_thread(self._write, present, openmetrics, rest), content_type

    def _write(self, present: list[tuple[str, ServiceSource]], openmetrics: bool, rest: bytes) -> bytes:
        """Render all metrics. Runs in a thread, and changes nothing."""
        page = Page(self._sources.now(), self._sources.ticks())
        for name, service in present:
            page.add(name, service, self._counters.get(name))
        return page.text(openmetrics, rest)

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


class LoopLag:
    """The lag of the event loop: the delay of a timer that is due each second."""

    def __init__(self, observe: Callable[[float], None]) -> None:
        self._observe = observe
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start to measure the running event loop."""
        self._arm(asyncio.get_running_loop())

    def close(self) -> None:
        if self._timer:
            self._timer.cancel()

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        due = loop.time() + LAG_INTERVAL_SECONDS
        self._timer = loop.call_at(due, self._ring, loop, due)

    def _ring(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self._observe(max(0.0, loop.time() - due))
        self._arm(loop)
