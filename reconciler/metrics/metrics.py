"""All metrics of one reconciler: told of what happens, and read at each scrape.

Between scrapes nothing is done but to count what happens. What there is of each service is written in a thread, so
that a scrape of ten thousand services keeps nobody waiting. A service that is no more vanishes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from prometheus_client.exposition import choose_encoder

from reconciler.core.reasons import Unknown
from reconciler.core.record import Record, State
from reconciler.core.traffic import Sample
from reconciler.metrics.registry import Registry
from reconciler.metrics.service_counters import ServiceCounters
from reconciler.metrics.services import Page
from reconciler.metrics.sources import ServiceSource, Sources
from reconciler.ports.holders import HoldStatus
from reconciler.ports.transitions import Transition

MOST_ENVOYS = 4096
"""Node ids of which acknowledgements are counted before those that are not connected are forgotten."""
OPENMETRICS = "application/openmetrics-text"
LAG_INTERVAL_SECONDS = 1.0


def acceptable(accept: str) -> str:
    """Return an `Accept` header that prometheus-client can parse: it raises on, and repeats, what a client sends."""
    types = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    return f"{OPENMETRICS}; version=1.0.0" if OPENMETRICS in types else ""


class Metrics:
    """Counts, and answers scrapes. Everything but the writing happens on the event loop."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._counters: dict[str, ServiceCounters] = {}
        self._holders: frozenset[str] = frozenset()
        self._registry = Registry(sources)
        self._lag = LoopLag(self._registry.lag.observe)

    def start(self) -> None:
        """Needs a running event loop."""
        self._lag.start()

    def close(self) -> None:
        self._lag.close()

    def lead(self) -> None:
        """Services are told of here from now on: counters begin anew, as what was counted meanwhile was elsewhere."""
        self._counters.clear()
        for name in self._sources.services():
            self._known(name)

    def configured(self) -> None:
        """Services came or went."""
        for name in self._counters.keys() - self._sources.services().keys():
            del self._counters[name]

    def ran(self, service: str) -> None:
        """It was seen whether the service runs; from the first time on it is counted."""
        if found := self._known(service):
            self._sleeps(*found)

    def held(self, held: HoldStatus) -> None:
        if found := self._known(held.service):
            holders = frozenset(self._sources.all_holders())
            if holders != self._holders:
                self._holders = holders  # one object for all counters, of which there may be many
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
        """A wake is over; `parts` are seconds by name, in order."""
        if total is not None:
            self._registry.woke(service, total, parts)
            if counters := self._counters.get(service):
                counters.last_wake = (total, parts)

    def sampled(self, sample: Sample, unknown: Unknown | None) -> None:
        """A sample was taken; `unknown` is why it says nothing, or None."""
        self._registry.samples.saw(sample, unknown)

    def acked(self, envoy: str) -> None:
        """An Envoy acknowledged endpoints."""
        acks = self._registry.acks
        if len(acks) >= MOST_ENVOYS and envoy not in acks:
            for gone in acks.keys() - self._sources.envoys().keys():
                del acks[gone]
        acks[envoy] += 1

    def called(self, method: str, code: str) -> None:
        """A call to the API server ended, with that code."""
        self._registry.calls[method, code] += 1

    async def scrape(self, accept: str) -> tuple[bytes, str]:
        """The page in the format that the `Accept` header asks for, and its content type."""
        encode, content_type = choose_encoder(acceptable(accept))
        for envoy in self._registry.acks.keys() - self._sources.envoys().keys():
            del self._registry.acks[envoy]
        rest = self._registry.text(encode)
        present = list(self._sources.services().items())
        openmetrics = content_type.startswith(OPENMETRICS)
        return await asyncio.to_thread(self._write, present, openmetrics, rest), content_type

    def _write(self, present: list[tuple[str, ServiceSource]], openmetrics: bool, rest: bytes) -> bytes:
        """In a thread: it looks, and changes nothing."""
        page = Page(self._sources.now(), self._sources.ticks())
        for name, service in present:
            page.add(name, service, self._counters.get(name))
        return page.text(openmetrics, rest)

    def _known(self, name: str) -> tuple[ServiceSource, ServiceCounters, Record] | None:
        """A service, its counters (made when it is the first time) and its record; None while it has none."""
        service = self._sources.services().get(name)
        if service is None or service.record is None:
            return None
        counters = self._counters.get(name)
        if counters is None:
            counters = self._counters[name] = ServiceCounters.of(service.record, service.asks, self._sources.ticks())
        return service, counters, service.record

    def _sleeps(self, service: ServiceSource, counters: ServiceCounters, record: Record) -> None:
        """Count from now on what is not run while it sleeps, if it does."""
        asleep = record.state is State.ScaledToZero
        counters.sleeps(record.replicas if asleep else 0, service.asks, self._sources.ticks())


class LoopLag:
    """The lag of the event loop: the delay of a timer that is due each second."""

    def __init__(self, observe: Callable[[float], None]) -> None:
        self._observe = observe
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start to measure. Needs a running event loop."""
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
