"""Slots for the checks of pods."""

from __future__ import annotations

import asyncio

from reconciler.kubernetes.workloads.probing import MAX_CONCURRENT_CHECKS, MAX_NAMESPACE_CHECKS, CheckSlots


class Checks:
    """Checks whose ends the test decides."""

    def __init__(self) -> None:
        self._slots, self.running, self.end = CheckSlots(), list[str](), asyncio.Event()
        self.tasks = list[asyncio.Task[None]]()

    async def _run(self, namespace: str, seconds: float) -> None:
        async with self._slots.slot(namespace, seconds):
            self.running.append(namespace)
            await self.end.wait()

    async def start(self, namespace: str, number: int, seconds: float = 0.0) -> None:
        """Start checks, and wait until those with a slot run."""
        self.tasks += [asyncio.create_task(self._run(namespace, seconds)) for _ in range(number)]
        await asyncio.sleep(0)


async def test_slots_of_one_namespace_are_bounded() -> None:
    checks = Checks()
    await checks.start("big", MAX_CONCURRENT_CHECKS * 2)
    await checks.start("small", 1)
    assert checks.running == ["big"] * MAX_NAMESPACE_CHECKS + ["small"]
    checks.end.set()
    await asyncio.gather(*checks.tasks)


async def test_slots_of_all_namespaces_are_bounded() -> None:
    checks = Checks()
    for at in range(MAX_CONCURRENT_CHECKS + 1):
        await checks.start(f"n{at}", 1)
    assert len(checks.running) == MAX_CONCURRENT_CHECKS
    checks.end.set()
    await asyncio.gather(*checks.tasks)


async def test_slot_is_occupied_for_a_while() -> None:
    checks = Checks()
    checks.end.set()
    await checks.start("shop", MAX_NAMESPACE_CHECKS, 3600.0)
    await asyncio.gather(*checks.tasks)
    await checks.start("shop", 1)
    assert len(checks.running) == MAX_NAMESPACE_CHECKS
    checks.tasks[-1].cancel()
    await asyncio.wait(checks.tasks)


async def test_check_that_is_cancelled_leaves_its_slot() -> None:
    checks = Checks()
    await checks.start("shop", MAX_NAMESPACE_CHECKS + 1)
    for task in checks.tasks:
        task.cancel()
    await asyncio.wait(checks.tasks)
    checks.tasks.clear()
    checks.end.set()
    await checks.start("shop", MAX_NAMESPACE_CHECKS * 2)
    await asyncio.gather(*checks.tasks)
    assert len(checks.running) == MAX_NAMESPACE_CHECKS * 3
