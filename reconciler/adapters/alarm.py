"""Deadlines by APScheduler: in memory, on the event loop, and never skipped for being late.

Counterpart: `reconciler.ports.alarm`. What is lost with the process is armed again from the plan.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from reconciler.plan import Deadline


class Alarm:
    """One job a service that has a deadline; none for the others."""

    def __init__(self, passed: Callable[[str, Deadline], None]) -> None:
        self._passed = passed
        self._scheduler = AsyncIOScheduler(
            timezone=UTC, job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1}
        )
        self._armed: dict[str, Deadline] = {}

    def start(self) -> None:
        """Needs a running event loop."""
        self._scheduler.start()

    def close(self) -> None:
        self._scheduler.shutdown(wait=False)

    def arm(self, service: str, deadline: Deadline | None) -> None:
        if self._armed.get(service) == deadline:
            return
        if deadline is None:
            del self._armed[service]
            self._scheduler.remove_job(service)
            return
        self._armed[service] = deadline
        at = datetime.fromtimestamp(deadline.at, UTC)
        self._scheduler.add_job(self._ring, "date", run_date=at, id=service, args=[service], replace_existing=True)

    async def _ring(self, service: str) -> None:
        """A coroutine, so that APScheduler runs it on the loop and not in a thread."""
        if deadline := self._armed.pop(service, None):
            self._passed(service, deadline)
