"""A keyed work queue, like client-go's: deduplicated, bounded concurrency, retried with backoff.

`add` is cheap and never blocks. Adding a key that is already queued has no effect; adding one that is being processed
queues it once more. Transient API errors are retried at once with backoff, other errors after `retry_after`. Each
distinct error is logged once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec
import stamina
import structlog

from reconciler.kubernetes.client.errors import ApiError, Unreachable, error_key, is_transient_or_conflict

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class WorkQueueTiming:
    """Concurrency and timing of a work queue; durations in seconds."""

    concurrency: int = 8
    batch_window: float = 0.25
    """Keys added within this window are processed together. It also lets wakes, which are urgent, go first."""
    attempts: int = 5
    backoff_min: float = 0.1
    backoff_max: float = 2.0
    retry_after: float = 10.0
    """Delay before a key whose attempts are exhausted is queued again."""


DEFAULT_TIMING = WorkQueueTiming()


class WorkQueue:
    """A queue that calls `process(key)` for each added key until it succeeds."""

    def __init__(
        self, process: Callable[[str], Awaitable[None]], failure_message: str, timing: WorkQueueTiming
    ) -> None:
        self._process, self._failure_message, self._timing = process, failure_message, timing
        self._queued: dict[str, None] = {}  # insertion-ordered set
        self._in_progress: set[str] = set()
        self._errors: dict[str, str] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._wakeup = asyncio.Event()
        self._retrying = stamina.AsyncRetryingCaller(
            attempts=timing.attempts,
            timeout=None,
            wait_initial=timing.backoff_min,
            wait_max=timing.backoff_max,
            wait_jitter=timing.backoff_min,
        ).on(is_transient_or_conflict)

    def add(self, key: str) -> None:
        """Queue a key."""
        self._queued[key] = None
        self._wakeup.set()

    def add_after(self, key: str, seconds: float | None = None) -> None:
        """Queue a key after a delay (default: `retry_after`), replacing an earlier delay."""
        if timer := self._timers.pop(key, None):
            timer.cancel()
        delay = self._timing.retry_after if seconds is None else seconds
        self._timers[key] = asyncio.get_running_loop().call_later(delay, self._add_due, key)

    async def run(self) -> None:
        """Process keys until cancelled."""
        slots = asyncio.Semaphore(self._timing.concurrency)
        async with asyncio.TaskGroup() as workers:
            while True:
                await self._wakeup.wait()
                await asyncio.sleep(self._timing.batch_window)
                self._wakeup.clear()
                for key in [key for key in self._queued if key not in self._in_progress]:
                    await slots.acquire()
                    self._queued.pop(key, None)
                    self._in_progress.add(key)
                    workers.create_task(self._process_one(key)).add_done_callback(lambda _: slots.release())

    async def drain(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds until the queue is empty; return whether every key succeeded.

        `run` must be running meanwhile.
        """
        try:
            async with asyncio.timeout(timeout):
                while self._queued or self._in_progress:
                    await asyncio.sleep(self._timing.batch_window / 5)
        except TimeoutError:
            return False
        return not self._errors

    def _add_due(self, key: str) -> None:
        del self._timers[key]
        self.add(key)

    async def _process_one(self, key: str) -> None:
        try:
            await self._retrying(self._process, key)
        except Exception as error:  # a defect in the work for one key must not stop the work for all others
            if not isinstance(error, ApiError | Unreachable | msgspec.DecodeError):
                log.exception("internal error while processing a key", service=key)
            cause = error_key(error)
            if cause not in self._errors.values():
                log.error(self._failure_message, service=key, error=str(error))
            self._errors[key] = cause
            self.add_after(key)
        else:
            self._errors.pop(key, None)
        finally:
            self._in_progress.discard(key)
            if key in self._queued:
                self._wakeup.set()
