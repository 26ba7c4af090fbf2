"""Deadlines by APScheduler: each comes back once, late rather than never, and a replaced one never."""

from __future__ import annotations

import asyncio
import time

from reconciler.alarm import Alarm
from reconciler.core.events import DrainTimedOut, IdleElapsed
from reconciler.plan import Deadline

PATIENCE_SECONDS = 20.0


class Bell:
    """Collects what an alarm says."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[tuple[str, Deadline]] = asyncio.Queue()
        self.alarm = Alarm(lambda service, deadline: self.heard.put_nowait((service, deadline)))
        self.alarm.start()

    async def next(self) -> tuple[str, Deadline]:
        return await asyncio.wait_for(self.heard.get(), PATIENCE_SECONDS)


async def test_a_deadline_comes_back_when_it_has_passed_even_when_it_already_had() -> None:
    bell = Bell()
    past, soon = Deadline(time.time() - 3600, IdleElapsed), Deadline(time.time() + 0.1, DrainTimedOut)
    bell.alarm.arm("late", past)
    bell.alarm.arm("soon", soon)
    assert {await bell.next(), await bell.next()} == {("late", past), ("soon", soon)}
    assert time.time() >= soon.at
    bell.alarm.close()


async def test_only_the_present_deadline_of_a_service_comes_back() -> None:
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


async def test_the_same_deadline_may_be_armed_again_after_it_passed() -> None:
    bell = Bell()
    deadline = Deadline(time.time(), IdleElapsed)
    bell.alarm.arm("web", deadline)
    assert await bell.next() == ("web", deadline)
    bell.alarm.arm("web", deadline)
    assert await bell.next() == ("web", deadline)
    bell.alarm.close()


async def test_a_deadline_that_is_due_while_another_rings_rings_too() -> None:
    """A crowd of deadlines a few microseconds apart, and each arms one more, which is due at once."""
    began, number = time.time() + 0.05, 500
    rung: list[str] = []
    done = asyncio.Event()

    def passed(service: str, _: Deadline) -> None:
        rung.append(service)
        if not service.startswith("again"):
            alarm.arm(f"again-{service}", Deadline(time.time(), IdleElapsed))
        if len(rung) == 2 * number:
            done.set()

    alarm = Alarm(passed)
    alarm.start()
    for count in range(number):
        alarm.arm(str(count), Deadline(began + count * 2e-5, IdleElapsed))
    await asyncio.wait_for(done.wait(), PATIENCE_SECONDS)
    alarm.close()
