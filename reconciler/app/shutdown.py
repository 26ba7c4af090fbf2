"""The orderly end of `zenvoy up`, service by service.

Envoy accepts no further connection. What is in flight to a service, or held for it, has the service's `drainTimeout` to
finish. Then its program gets its stop signal, and `drainTimeout` once more until SIGKILL. Each further signal ends what
is being waited for: the first cuts what is in flight, the second kills the programs. Counterpart: `up.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import structlog

from reconciler.core.judge import SETTLE_SECONDS
from reconciler.core.text import format_duration, join_words, pluralize
from reconciler.core.traffic import Sample, in_flight
from reconciler.engine.service import Service
from reconciler.local.processes import ProcessBackend
from reconciler.local.state_dir import NODE

log = structlog.get_logger(__name__)

POLL_SECONDS = 0.1
SILENT_SECONDS = 0.7
"""An end that takes no longer than this is not commented on."""
REPORT_SECONDS = 10.0
MOST_NAMED = 5


class EnvoyAdmin(Protocol):
    """The Envoy that `zenvoy up` runs, by its admin port."""

    async def stop_listening(self, envoy: str) -> bool: ...

    async def is_gone(self, envoy: str) -> bool: ...

    async def sample(self) -> Sample: ...


class Progress:
    """Reports what is being waited for: after a moment, and again every 10 seconds."""

    def __init__(self, ticks: Callable[[], float]) -> None:
        self._ticks = ticks
        self._due = ticks() + SILENT_SECONDS

    def report(self, what: Iterable[str], at_most: float, remedy: str) -> None:
        """Log a line if one is due; `at_most` is in seconds."""
        if self._ticks() >= self._due:
            self._due = self._ticks() + REPORT_SECONDS
            named = list(what)
            rest = [f"{len(named) - MOST_NAMED} more"] if len(named) > MOST_NAMED else []
            words = join_words([*named[:MOST_NAMED], *rest], "and")
            log.info(f"waiting for {words} (up to {format_duration(at_most)}); press Ctrl-C again to {remedy}")


class Drain:
    """The first part of the end: what is in flight finishes, and each service stops when nothing is.

    `others` are further Envoys that are connected; what is in flight through them is not known.
    """

    def __init__(
        self,
        backend: ProcessBackend,
        services: Mapping[str, Service],
        envoy: EnvoyAdmin,
        others: Callable[[], frozenset[str]],
        ticks: Callable[[], float],
    ) -> None:
        self._backend, self._services, self._envoy = backend, services, envoy
        self._others, self._ticks = others, ticks
        self._retired: set[str] = set()

    async def run(self, hurry: asyncio.Event) -> None:
        """Return when every service has got its stop signal, or `hurry` is set; `hurry` is then clear again."""
        began, progress = self._ticks(), Progress(self._ticks)
        if await self._envoy.stop_listening(NODE):
            await asyncio.sleep(SETTLE_SECONDS)
        while waiting := await self._look(began):
            named = [f"{why} to {name}" for name, why in sorted(waiting.items())]
            longest = max(self._services[name].spec.drain_timeout for name in waiting)
            progress.report(named, began + longest - self._ticks(), "cut what is in flight")
            if await is_set(hurry, POLL_SECONDS):
                log.warning("what is in flight is cut", services=waiting)
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
            why = blocker(service, sample, expected)
            if why and elapsed < service.spec.drain_timeout:
                waiting[name] = why
                continue
            if why:
                log.warning("what is in flight after all of drainTimeout is cut", service=name, in_flight=why)
            self._retired.add(name)
            self._backend.retire(name)
        return waiting


def blocker(service: Service, sample: Sample, expected: frozenset[str]) -> str | None:
    """Return what is in flight to a service, or held for it, for people; None when it may stop.

    `expected` are the Envoys that still run: what another one had in flight is lost already.
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


async def stop_programs(backend: ProcessBackend, hurry: asyncio.Event, ticks: Callable[[], float]) -> None:
    """Stop every program; each has its drain time-out, and none more time once `hurry` is set."""
    progress, began = Progress(ticks), ticks()
    for service in backend.ending:
        backend.retire(service)
    closing = asyncio.create_task(backend.close())
    while not closing.done():
        if ending := backend.ending:
            progress.report(_named(ending), began + max(ending.values()) - ticks(), "kill what is left")
        if await is_set(hurry, POLL_SECONDS, closing):
            log.warning("programs are killed", services=sorted(backend.ending))
            backend.kill()
    await closing


def _named(ending: Mapping[str, float]) -> list[str]:
    return [f"{name} to stop" for name in sorted(ending)]


async def is_set(event: asyncio.Event, seconds: float, *others: asyncio.Task[None]) -> bool:
    """Wait until the event is set, at most so long or until one of the others is done; if it was, clear it."""
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait({waiting, *others}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    was = event.is_set()
    event.clear()
    return was
