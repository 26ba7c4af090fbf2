"""A proxy between one replica and the API server: records sleeps, and can hold back answers about the Lease."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from tests.cluster.recorder import recorder

_SECONDS = 60


class Between:
    """In a thread of its own."""

    def __init__(self, kubeconfig: Path) -> None:
        self.zeroed: list[str] = []
        """Names of the targets that the replica scaled to zero, in order."""
        self.at_zero: Callable[[], None] = lambda: None
        """Called for each sleep, before the API server gets it."""
        self.refuses_zero = False
        """Makes the API server too busy for a sleep."""
        self.kubeconfig = kubeconfig
        """By way of this."""
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._closing, self._lease_is_answered = asyncio.Event(), asyncio.Event()
        self._lease_is_answered.set()
        self._thread = threading.Thread(
            target=self._loop.run_until_complete, args=(self._run(kubeconfig),), daemon=True
        )
        self._thread.start()
        assert self._ready.wait(_SECONDS)

    def keep_its_lease(self) -> None:
        """Hold back the answers about its Lease until `give_its_lease`."""
        self._loop.call_soon_threadsafe(self._lease_is_answered.clear)

    def give_its_lease(self) -> None:
        self._loop.call_soon_threadsafe(self._lease_is_answered.set)

    def close(self) -> None:
        self.give_its_lease()
        self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(_SECONDS)
        self._loop.close()

    async def _run(self, kubeconfig: Path) -> None:
        async with recorder(kubeconfig) as made:
            made.coming = self._coming
            self.kubeconfig = made.kubeconfig(kubeconfig)
            self._ready.set()
            await self._closing.wait()

    async def _coming(self, method: str, path: str, body: bytes) -> None:
        if "/leases" in path:
            await self._lease_is_answered.wait()
        if method == "PATCH" and path.endswith("/scale") and _asks_for_zero(body):
            self.zeroed.append(path.split("/")[-2])
            self.at_zero()
            if self.refuses_zero:
                raise web.HTTPServiceUnavailable


def _asks_for_zero(patch: bytes) -> bool:
    return any(one["op"] != "test" and one["value"] == 0 for one in json.loads(patch))
