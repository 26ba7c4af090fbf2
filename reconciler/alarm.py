"""Deadlines by APScheduler: in memory, on the event loop, and never skipped for being late.

Rule: one job in all, for the earliest deadline, since adding one costs as much as the rest of a wake's decision. What
is lost with the process is armed again from the plan. Counterpart: `reconciler.ports.alarm`.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from datetime import UTC, datetime

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from reconciler.plan import Deadline

MOST_STALE = 64
"""Entries that are not armed any more are swept out of the queue when they are more than this, and than half."""

MANY = 1_000_000
"""APScheduler counts a job as running for a moment after it has ended, and drops one that is due then if it may not."""


class Alarm:
    """At most one deadline a service."""

    def __init__(self, passed: Callable[[str, Deadline], None]) -> None:
        self._passed = passed
        self._scheduler = AsyncIOScheduler(
            timezone=UTC, job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": MANY}
        )
        self._armed: dict[str, Deadline] = {}
        self._queue: list[tuple[float, str]] = []
        """A heap of when, and whose; one that is not armed any more is skipped when its time comes."""
        self._rings_at: float | None = None

    def start(self) -> None:
        """Needs a running event loop."""
        self._scheduler.start()

    def close(self) -> None:
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    def arm(self, service: str, deadline: Deadline | None) -> None:
        if self._armed.get(service) == deadline:
            return
        if deadline is None:
            del self._armed[service]
            return
        self._armed[service] = deadline
        heapq.heappush(self._queue, (deadline.at, service))
        if len(self._queue) > 2 * len(self._armed) + MOST_STALE:
            self._queue = sorted((armed.at, name) for name, armed in self._armed.items())
        if self._rings_at is None or deadline.at < self._rings_at:
            self._ring_at(deadline.at)

    def _ring_at(self, at: float) -> None:
        self._rings_at = at
        when = datetime.fromtimestamp(at, UTC)
        self._scheduler.add_job(self._ring, "date", run_date=when, id="deadline", replace_existing=True)

    async def _ring(self) -> None:
        """A coroutine, so that APScheduler runs it on the loop and not in a thread."""
        self._rings_at, now = None, time.time()
        try:
            while self._queue and self._queue[0][0] <= now:
                at, service = heapq.heappop(self._queue)
                deadline = self._armed.get(service)
                if deadline and deadline.at == at:
                    del self._armed[service]
                    self._passed(service, deadline)
        finally:
            if self._queue and (self._rings_at is None or self._queue[0][0] < self._rings_at):
                self._ring_at(self._queue[0][0])
