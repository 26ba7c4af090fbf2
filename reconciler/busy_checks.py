"""Busy checks, run in the background.

Every question has an answer: a check that raises an error has failed, and its service stays awake.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from reconciler.core.busy import BusyAnswer, check_failed
from reconciler.core.reasons import Blocker

log = structlog.get_logger(__name__)

MAX_CONCURRENT_CHECKS = 256


class BusyCheckRunner:
    """Runs the checks of all services, with bounded concurrency and one at a time for each service."""

    def __init__(
        self, check: Callable[[str], Awaitable[Blocker | None]], report: Callable[[str, BusyAnswer], None]
    ) -> None:
        """`check` asks a service, and returns the reason to keep it awake, or None. It must be bounded in time."""
        self._check, self._report = check, report
        self._slots = asyncio.Semaphore(MAX_CONCURRENT_CHECKS)
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def ask(self, service: str, at: float) -> None:
        """Ask a service at `at` (seconds since the epoch). While it is being asked, this has no effect."""
        if service not in self._tasks:
            self._tasks[service] = asyncio.create_task(self._run(service, at), name=f"busy check of {service}")

    async def close(self) -> None:
        """Cancel all checks; they have no answer."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, service: str, at: float) -> None:
        try:
            async with self._slots:
                blocker = await self._check(service)
        except Exception as error:
            log.exception("a busy check failed: this is a bug in zenvoy", service=service)
            blocker = check_failed(f"the check failed: {error!r}")
        finally:
            del self._tasks[service]
        self._report(service, BusyAnswer(at, blocker))
