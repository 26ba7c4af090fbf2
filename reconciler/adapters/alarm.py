"""Deadlines by APScheduler: in memory, on the event loop, and never skipped for being late.

Counterpart: `reconciler.ports.alarm`. What is lost with the process is armed again from the plan.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from apscheduler.jobstores.base import JobLookupError
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
            with suppress(JobLookupError):  # it is due, and about to ring
                self._scheduler.remove_job(service)
            return
        self._armed[service] = deadline
        at = datetime.fromtimestamp(deadline.at, UTC)
        arguments = [service, deadline]
        self._scheduler.add_job(self._ring, "date", run_date=at, id=service, args=arguments, replace_existing=True)

    async def _ring(self, service: str, deadline: Deadline) -> None:
        """A coroutine, so that APScheduler runs it on the loop and not in a thread. By then another may be armed."""
        if self._armed.get(service) == deadline:
            del self._armed[service]
            self._passed(service, deadline)
