"""Tests of the alarm: it reports each deadline once, perhaps late, and never a replaced one."""

from __future__ import annotations

import asyncio
import time

from reconciler.alarm import SchedulerAlarm
from reconciler.core.events import DrainTimedOut, IdleElapsed
from reconciler.plan import Deadline

PATIENCE_SECONDS = 60.0


class Bell:
    """A collector of the alarm's reports."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[tuple[str, Deadline]] = asyncio.Queue()
        self.alarm = SchedulerAlarm(lambda service, deadline: self.heard.put_nowait((service, deadline)))
        self.alarm.start()

    async def next(self) -> tuple[str, Deadline]:
        return await asyncio.wait_for(self.heard.get(), PATIENCE_SECONDS)


async def test_alarm_reports_passed_and_past_deadlines() -> None:
    bell = Bell()
    past, soon = Deadline(time.time() - 3600, IdleElapsed), Deadline(time.time() + 0.1, DrainTimedOut)
    bell.alarm.arm("late", past)
    bell.alarm.arm("soon", soon)
    assert {await bell.next(), await bell.next()} == {("late", past), ("soon", soon)}
    assert time.time() >= soon.at
    bell.alarm.close()


async def test_alarm_reports_only_the_present_deadline() -> None:
    bell = Bell()
    first, second = Deadline(time.time() + 0.05, IdleElapsed), Deadline(time.time() + 0.1, IdleElapsed)
    bell.alarm.arm("web", first)
    bell.alarm.arm("web", second)
    bell.alarm.arm("gone", first)
    bell.alarm.arm("gone", None)
    last = Deadline(time.time() + 0.3, IdleElapsed)
    bell.alarm.arm("last", last)
    assert [await bell.next(), await bell.next()] == [("web", second), ("last", last)]
    bell.alarm.close()


async def test_alarm_rearmed_with_same_deadline_reports_again() -> None:
    bell = Bell()
    deadline = Deadline(time.time(), IdleElapsed)
    bell.alarm.arm("web", deadline)
    assert await bell.next() == ("web", deadline)
    bell.alarm.arm("web", deadline)
    assert await bell.next() == ("web", deadline)
    bell.alarm.close()


async def test_alarm_with_simultaneous_deadlines_reports_all() -> None:
    """Many deadlines are due within microseconds, and each arms another one that is due immediately."""
    began, number = time.time() + 0.05, 500
    rung: list[str] = []
    done = asyncio.Event()

    def passed(service: str, _: Deadline) -> None:
        rung.append(service)
        if not service.startswith("again"):
            alarm.arm(f"again-{service}", Deadline(time.time(), IdleElapsed))
        if len(rung) == 2 * number:
            done.set()

    alarm = SchedulerAlarm(passed)
    alarm.start()
    for count in range(number):
        alarm.arm(str(count), Deadline(began + count * 2e-5, IdleElapsed))
    await asyncio.wait_for(done.wait(), PATIENCE_SECONDS)
    alarm.close()
