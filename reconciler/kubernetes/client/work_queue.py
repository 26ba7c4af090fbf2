"""Something to be done about each of many objects: few at once, about each never twice at once, until it is done.

Rule: a mark costs nothing and waits for nothing; marks that come at once are one errand. A fault that passes is tried
again at once, any other later, and each cause is told once. Counterparts: `status_writer.py` and `finalizer.py`.
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
    """How much is done at once, and how patiently; in seconds."""

    at_once: int = 8
    gather: float = 0.25
    """What is marked within it is one errand; and wakes, which are due in the same moment, go first."""
    attempts: int = 5
    first_wait: float = 0.1
    longest_wait: float = 2.0
    again: float = 10.0
    """After so many attempts others get their turn, and this one is tried again later."""


DEFAULT_TIMING = WorkQueueTiming()


class WorkQueue:
    """`do` is called with the key of what was marked; `told` is what is logged when it cannot be done."""

    def __init__(self, do: Callable[[str], Awaitable[None]], told: str, pace: WorkQueueTiming) -> None:
        self._do, self._told, self._pace = do, told, pace
        self._due: dict[str, None] = {}
        """In order."""
        self._busy: set[str] = set()
        self._failing: dict[str, str] = {}
        """Why it cannot be done, by key."""
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._marked = asyncio.Event()
        self._retries = stamina.AsyncRetryingCaller(
            attempts=pace.attempts,
            timeout=None,
            wait_initial=pace.first_wait,
            wait_max=pace.longest_wait,
            wait_jitter=pace.first_wait,
        ).on(is_transient_or_conflict)

    def add(self, key: str) -> None:
        self._due[key] = None
        self._marked.set()

    def add_after(self, key: str, seconds: float | None = None) -> None:
        """Mark it in a while, and not when this was asked for before."""
        if timer := self._timers.pop(key, None):
            timer.cancel()
        wait = self._pace.again if seconds is None else seconds
        self._timers[key] = asyncio.get_running_loop().call_later(wait, self._ring, key)

    def _ring(self, key: str) -> None:
        del self._timers[key]
        self.add(key)

    async def run(self) -> None:
        """Until cancelled."""
        slots = asyncio.Semaphore(self._pace.at_once)
        async with asyncio.TaskGroup() as errands:
            while True:
                await self._marked.wait()
                await asyncio.sleep(self._pace.gather)
                self._marked.clear()
                for key in [key for key in self._due if key not in self._busy]:
                    await slots.acquire()
                    self._due.pop(key, None)
                    self._busy.add(key)
                    errands.create_task(self._run(key)).add_done_callback(lambda _: slots.release())

    async def flush(self, seconds: float) -> bool:
        """Wait until all that is marked is done, at most so long; whether it is. `run` has to go on meanwhile."""
        try:
            async with asyncio.timeout(seconds):
                while self._due or self._busy:
                    await asyncio.sleep(self._pace.gather / 5)
        except TimeoutError:
            return False
        return not self._failing

    async def _run(self, key: str) -> None:
        try:
            await self._retries(self._do, key)
        except (ApiError, Unreachable, msgspec.DecodeError) as error:
            self._failed(key, error)
        except Exception as error:  # the work for one object must never end that for all others
            log.exception("an errand has failed, by a fault of zenvoy", service=key)
            self._failed(key, error)
        else:
            self._failing.pop(key, None)
        finally:
            self._busy.discard(key)
            if key in self._due:
                self._marked.set()

    def _failed(self, key: str, error: Exception) -> None:
        why = error_key(error)
        if why not in self._failing.values():
            log.error(self._told, service=key, error=str(error))
        self._failing[key] = why
        self.add_after(key)
