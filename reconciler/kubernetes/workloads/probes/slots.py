"""Slots for dials, probes, and busy checks of pods: they bound number and rate, in total and of one namespace.

A pod can have many containers whose checks all fail at once, and many ScaledServices can name one Service, so the
number of checks at once does not bound their work.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

MAX_CONCURRENT_CHECKS = 256
MAX_NAMESPACE_CHECKS = 128
"""The pods of one namespace must not keep those of others from being checked."""
SLOT_SECONDS = 0.25
"""The shortest time for which a check occupies its slot."""
COSTLY_SLOT_SECONDS = 1.0
"""The same for a check that takes ten times as much of the processor: over gRPC or TLS, or with a call to the API."""


class CheckSlots:
    """Slots for one event loop."""

    def __init__(self) -> None:
        self._all = asyncio.Semaphore(MAX_CONCURRENT_CHECKS)
        self._of_namespaces: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def slot(self, namespace: str, seconds: float = 0.0) -> AsyncIterator[None]:
        """Wait for a slot for a check of a pod in this namespace, and occupy it for at least `seconds`."""
        share = self._of_namespaces.setdefault(namespace, asyncio.Semaphore(MAX_NAMESPACE_CHECKS))
        await share.acquire()
        try:
            await self._all.acquire()
        except BaseException:
            share.release()
            raise
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        try:
            yield
        finally:
            for slots in (self._all, share):
                loop.call_at(until, slots.release)
