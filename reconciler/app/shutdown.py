"""The shutdown of `zenvoy up`, service by service.

Envoy accepts no new connections. Requests and connections of a service, in flight or held, have its `drainTimeout` to
finish. Then its program receives its stop signal, and SIGKILL after another `drainTimeout`. Each further signal to `up`
ends a wait: the first cuts what is in flight, the second kills the programs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import structlog

from reconciler.core.judge import SETTLE_SECONDS
from reconciler.core.text import format_duration, join_words, pluralize
from reconciler.core.traffic import Sample, evidence
from reconciler.engine.service import ManagedService
from reconciler.local.processes.backend import ProcessBackend
from reconciler.local.state_dir import NODE

if TYPE_CHECKING:
    from reconciler.envoy.admin_stats import AdminStats

log = structlog.get_logger(__name__)

POLL_SECONDS = 0.1
FIRST_REPORT_SECONDS = 0.7
"""A shorter wait is not reported."""
REPORT_SECONDS = 10.0
MAX_NAMED = 5


class Progress:
    """Logs the cause of a wait: after a moment, and again every 10 seconds."""

    def __init__(self) -> None:
        self._due = time.monotonic() + FIRST_REPORT_SECONDS

    def report(self, named: Sequence[str], at_most: float, remedy: str) -> None:
        """Log a line if one is due; the wait ends after `at_most` seconds."""
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + REPORT_SECONDS
            rest = [f"{len(named) - MAX_NAMED} more"] if len(named) > MAX_NAMED else []
            words = join_words([*named[:MAX_NAMED], *rest], "and")
            log.info(f"waiting for {words} (up to {format_duration(at_most)}); press Ctrl-C again to {remedy}")


async def drain(
    backend: ProcessBackend,
    services: Mapping[str, ManagedService],
    envoy: AdminStats,
    others: Callable[[], frozenset[str]],
    shorten: asyncio.Event,
) -> None:
    """Do the first part of the shutdown: stop each service once nothing is in flight to it.

    `others` returns further connected Envoys, whose connections in flight are unknown. Returns when every service has
    its stop signal, or when `shorten` is set, which is then cleared.
    """
    began, progress, waiting = time.monotonic(), Progress(), dict(services)
    if await envoy.stop_listening(NODE):
        await asyncio.sleep(SETTLE_SECONDS)
    while True:
        sample = await envoy.sample()
        gone = NODE not in sample.envoys and await envoy.is_gone(NODE)
        expected = others() | (frozenset() if gone else {NODE})
        blockers = {name: blocker(service, sample, expected) for name, service in waiting.items()}
        elapsed = time.monotonic() - began
        for name, reason in blockers.items():
            if reason and elapsed < waiting[name].spec.drain_timeout:
                continue
            if reason:
                log.warning("cutting what is in flight after drainTimeout", service=name, in_flight=reason)
            del waiting[name]
            backend.retire(name)
        if not waiting:
            return
        named = [f"{blockers[name]} to {name}" for name in sorted(waiting)]
        longest = max(service.spec.drain_timeout for service in waiting.values())
        progress.report(named, began + longest - time.monotonic(), "cut what is in flight")
        if await is_set(shorten, POLL_SECONDS):
            log.warning("cutting what is in flight", services={name: blockers[name] for name in waiting})
            return


def blocker(service: ManagedService, sample: Sample, expected: frozenset[str]) -> str | None:
    """Return what is in flight to a service or held for it, for people; None when it may stop.

    `expected` are the Envoys that still run: connections of another Envoy are lost already.
    """
    seen, stalled = service.seen, service.record and service.record.stalled
    if seen.held and not stalled:
        return pluralize(seen.held, "held connection")
    if not seen.endpoints or not expected:
        return None
    found = evidence(sample, expected, service.spec.name)
    if found is None:
        return "an unknown number of connections"
    count = found.in_flight(service.spec)
    return pluralize(count, "request" if service.spec.protocol.is_http else "connection") if count else None


async def stop_programs(backend: ProcessBackend, shorten: asyncio.Event) -> None:
    """Stop all programs, each within its drain timeout; kill them once `shorten` is set."""
    progress, began = Progress(), time.monotonic()
    for service in backend.ending:
        backend.retire(service)
    closing = asyncio.create_task(backend.close())
    while not closing.done():
        if ending := backend.ending:
            left = began + max(ending.values()) - time.monotonic()
            progress.report([f"{name} to stop" for name in sorted(ending)], left, "kill what is left")
        if await is_set(shorten, POLL_SECONDS, closing):
            log.warning("killing programs", services=sorted(backend.ending))
            backend.kill()
    await closing


async def is_set(event: asyncio.Event, seconds: float | None, *others: asyncio.Future[Any]) -> bool:
    """Wait for the event, for `seconds`, or for one of the others; clear the event, and return whether it was set."""
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait({waiting, *others}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    was = event.is_set()
    event.clear()
    return was
