"""The shutdown of `zenvoy up`, service by service.

Envoy accepts no new connections. Requests and connections of a service, in flight or held, have its `drainTimeout` to
finish. Then its program receives its stop signal, and SIGKILL after another `drainTimeout`. Each further signal to `up`
ends a wait: the first cuts what is in flight, the second kills the programs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import structlog

from reconciler.core.judge import SETTLE_SECONDS
from reconciler.core.text import format_duration, join_words, pluralize
from reconciler.core.traffic import Sample, in_flight
from reconciler.engine.service import ManagedService
from reconciler.local.processes import ProcessBackend
from reconciler.local.state_dir import NODE

log = structlog.get_logger(__name__)

POLL_SECONDS = 0.1
FIRST_REPORT_SECONDS = 0.7
"""A shorter wait is not reported."""
REPORT_SECONDS = 10.0
MAX_NAMED = 5


class EnvoyAdmin(Protocol):
    """The Envoy that `zenvoy up` runs, by its admin port."""

    async def stop_listening(self, envoy: str) -> bool: ...

    async def is_gone(self, envoy: str) -> bool: ...

    async def sample(self) -> Sample: ...


class Progress:
    """Logs the cause of a wait: after a moment, and again every 10 seconds."""

    def __init__(self, ticks: Callable[[], float]) -> None:
        self._ticks = ticks
        self._due = ticks() + FIRST_REPORT_SECONDS

    def report(self, what: Iterable[str], at_most: float, remedy: str) -> None:
        """Log a line if one is due; the wait ends after `at_most` seconds."""
        if self._ticks() >= self._due:
            self._due = self._ticks() + REPORT_SECONDS
            named = list(what)
            rest = [f"{len(named) - MAX_NAMED} more"] if len(named) > MAX_NAMED else []
            words = join_words([*named[:MAX_NAMED], *rest], "and")
            log.info(f"waiting for {words} (up to {format_duration(at_most)}); press Ctrl-C again to {remedy}")


class Drain:
    """The first part of the shutdown: each service stops once nothing is in flight to it.

    `others` returns further connected Envoys, whose connections in flight are unknown.
    """

    def __init__(
        self,
        backend: ProcessBackend,
        services: Mapping[str, ManagedService],
        envoy: EnvoyAdmin,
        others: Callable[[], frozenset[str]],
        ticks: Callable[[], float],
    ) -> None:
        self._backend, self._services, self._envoy = backend, services, envoy
        self._others, self._ticks = others, ticks
        self._retired: set[str] = set()

    async def run(self, shorten: asyncio.Event) -> None:
        """Return when every service has its stop signal, or when `shorten` is set, which is then cleared."""
        began, progress = self._ticks(), Progress(self._ticks)
        if await self._envoy.stop_listening(NODE):
            await asyncio.sleep(SETTLE_SECONDS)
        while waiting := await self._look(began):
            named = [f"{reason} to {name}" for name, reason in sorted(waiting.items())]
            longest = max(self._services[name].spec.drain_timeout for name in waiting)
            progress.report(named, began + longest - self._ticks(), "cut what is in flight")
            if await is_set(shorten, POLL_SECONDS):
                log.warning("cutting what is in flight", services=waiting)
                return

    async def _look(self, began: float) -> dict[str, str]:
        """Retire the services that may stop; return what is in flight to the others."""
        sample = await self._envoy.sample()
        gone = NODE not in sample.envoys and await self._envoy.is_gone(NODE)
        expected, elapsed = self._others() | (frozenset() if gone else {NODE}), self._ticks() - began
        waiting = {}
        for name, service in self._services.items():
            if name in self._retired:
                continue
            reason = blocker(service, sample, expected)
            if reason and elapsed < service.spec.drain_timeout:
                waiting[name] = reason
                continue
            if reason:
                log.warning("cutting what is in flight after drainTimeout", service=name, in_flight=reason)
            self._retired.add(name)
            self._backend.retire(name)
        return waiting


def blocker(service: ManagedService, sample: Sample, expected: frozenset[str]) -> str | None:
    """Return what is in flight to a service or held for it, for people; None when it may stop.

    `expected` are the Envoys that still run: connections of another Envoy are lost already.
    """
    seen, stalled = service.seen, service.record and service.record.stalled
    if seen.held and not stalled:
        return pluralize(seen.held, "held connection")
    if not seen.endpoints or not expected:
        return None
    count = in_flight(service.spec, sample, expected)
    if count is None:
        return "an unknown number of connections"
    return pluralize(count, "request" if service.spec.protocol.is_http else "connection") if count else None


async def stop_programs(backend: ProcessBackend, shorten: asyncio.Event, ticks: Callable[[], float]) -> None:
    """Stop all programs, each within its drain timeout; kill them once `shorten` is set."""
    progress, began = Progress(ticks), ticks()
    for service in backend.ending:
        backend.retire(service)
    closing = asyncio.create_task(backend.close())
    while not closing.done():
        if ending := backend.ending:
            progress.report(_named(ending), began + max(ending.values()) - ticks(), "kill what is left")
        if await is_set(shorten, POLL_SECONDS, closing):
            log.warning("killing programs", services=sorted(backend.ending))
            backend.kill()
    await closing


def _named(ending: Mapping[str, float]) -> list[str]:
    return [f"{name} to stop" for name in sorted(ending)]


async def is_set(event: asyncio.Event, seconds: float, *others: asyncio.Task[None]) -> bool:
    """Wait for the event, for `seconds`, or for one of the tasks; clear the event, and return whether it was set."""
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait({waiting, *others}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    was = event.is_set()
    event.clear()
    return was
