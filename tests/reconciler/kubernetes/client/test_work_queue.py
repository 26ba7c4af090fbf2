"""The work queue when the work for one key fails."""

from __future__ import annotations

import asyncio

from structlog.testing import capture_logs

from reconciler.kubernetes.client.work_queue import WorkQueue, WorkQueueTiming

FAST = WorkQueueTiming(batch_window=0.001, attempts=1, backoff_min=0.001, backoff_max=0.002, retry_after=0.01)


async def test_work_queue_internal_error_keeps_other_keys() -> None:
    done: list[str] = []
    failures_left = 2

    async def process(key: str) -> None:
        nonlocal failures_left
        if key == "bad" and (failures_left := failures_left - 1) >= 0:
            raise ValueError("a defect")
        done.append(key)

    queue = WorkQueue(process, "failed to process", FAST)
    running = asyncio.create_task(queue.run())
    with capture_logs() as logs:
        for key in ("bad", "good", "other"):
            queue.add(key)
        async with asyncio.timeout(60):
            while set(done) != {"bad", "good", "other"}:
                await asyncio.sleep(0.001)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert [one["service"] for one in logs if "internal error" in one["event"]] == ["bad", "bad"]
