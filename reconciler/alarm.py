"""Deadlines of services: one APScheduler job per armed deadline, kept in memory and run on the event loop.

The engine arms deadlines again from the plan after a restart, so nothing is persisted.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from reconciler.concurrency import NextTurn
from reconciler.plan import Deadline

MAX_INSTANCES = 1_000_000
"""APScheduler skips a run of a job while this many earlier runs of it have not ended."""


class SchedulerAlarm:
    """Calls `passed` with a service and its deadline once the deadline has passed; late rather than never."""

    def __init__(self, passed: Callable[[str, Deadline], None]) -> None:
        self._passed = passed
        self._scheduler = AsyncIOScheduler(
            timezone=UTC, job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": MAX_INSTANCES}
        )
        self._armed: dict[str, Deadline] = {}
        self._schedule_soon = NextTurn(self._schedule).add

    def start(self) -> None:
        """Start the scheduler; needs a running event loop."""
        self._scheduler.start()

    def close(self) -> None:
        """Stop the scheduler; `passed` is not called again."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    def arm(self, service: str, deadline: Deadline | None) -> None:
        """Replace the service's deadline; None disarms it.

        The job is replaced in the next turn of the event loop, because that costs as much as the decision to wake.
        """
        if self._armed.get(service) == deadline:
            return
        if deadline is None:
            del self._armed[service]
        else:
            self._armed[service] = deadline
        self._schedule_soon(service)

    def _schedule(self, service: str) -> None:
        if deadline := self._armed.get(service):
            when = datetime.fromtimestamp(deadline.at, UTC)
            self._scheduler.add_job(
                self._ring, "date", run_date=when, args=(service, deadline), id=service, replace_existing=True
            )
        else:
            with suppress(JobLookupError):  # armed and disarmed within one turn, or the job is due
                self._scheduler.remove_job(service)

    async def _ring(self, service: str, deadline: Deadline) -> None:
        """Report a deadline that is still armed; a coroutine, so that APScheduler runs it on the event loop."""
        if self._armed.get(service) == deadline:
            del self._armed[service]
            self._passed(service, deadline)
