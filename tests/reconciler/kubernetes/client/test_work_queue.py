"""A fault in the work for one object, and the work for all others."""

from __future__ import annotations

import asyncio

from structlog.testing import capture_logs

from reconciler.kubernetes.client.work_queue import WorkQueue, WorkQueueTiming

FAST = WorkQueueTiming(gather=0.001, attempts=1, first_wait=0.001, longest_wait=0.002, again=0.01)


async def test_errands_with_a_fault_in_one_do_the_others() -> None:
    done: list[str] = []
    faults = 2

    async def do(key: str) -> None:
        nonlocal faults
        if key == "bad" and (faults := faults - 1) >= 0:
            raise ValueError("a fault of zenvoy")
        done.append(key)

    errands = WorkQueue(do, "it cannot be done", FAST)
    running = asyncio.create_task(errands.run())
    with capture_logs() as logs:
        for key in ("bad", "good", "other"):
            errands.add(key)
        async with asyncio.timeout(10):
            while set(done) != {"bad", "good", "other"}:
                await asyncio.sleep(0.001)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert [one["service"] for one in logs if "fault of zenvoy" in one["event"]] == ["bad", "bad"]
