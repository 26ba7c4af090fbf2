"""Slots for the checks of pods: they bound the number and the rate of checks, in total and of one namespace.

A pod can have many containers, and all of its checks can fail at once, so the number alone bounds no work.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from reconciler.kubernetes.workloads.probes.checks import Check, GrpcCheck, HttpCheck

MAX_CONCURRENT_CHECKS = 256
MAX_NAMESPACE_CHECKS = 128
"""The pods of one namespace must not keep those of others from being checked."""
SLOT_SECONDS = 0.25
"""The shortest time for which a check occupies its slot."""
COSTLY_SLOT_SECONDS = 1.0
"""The same for a check over gRPC or TLS, which takes ten times as much of the processor."""


class CheckSlots:
    """Slots for one event loop."""

    def __init__(self) -> None:
        self._all = asyncio.Semaphore(MAX_CONCURRENT_CHECKS)
        self._of_namespaces: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def slot(self, namespace: str, check: Check) -> AsyncIterator[None]:
        """Wait for a slot for a check of a pod in this namespace."""
        share = self._of_namespaces.setdefault(namespace, asyncio.Semaphore(MAX_NAMESPACE_CHECKS))

        await share.acquire()
        try:
            await self._all.acquire()
        except BaseException:
            share.release()
            raise
        loop = asyncio.get_running_loop()
        is_costly = isinstance(check, GrpcCheck) or (isinstance(check, HttpCheck) and check.tls)
        until = loop.time() + (COSTLY_SLOT_SECONDS if is_costly else SLOT_SECONDS)
        try:
            yield
        finally:
            for slots in (self._all, share):
                loop.call_at(until, slots.release)
