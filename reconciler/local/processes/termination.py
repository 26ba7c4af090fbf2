"""Ends everything of one service: its process group, and whatever of it went into another group or session.

Rule: it is over only when no process is left; a leader that ended proves nothing of its children.
Source: kill(2), setsid(2). Counterpart: `launch.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from signal import SIGKILL, Signals

import structlog

from reconciler.local.processes.pidfd import Watched
from reconciler.local.processes.procfs import Census, Seen, take_census

log = structlog.get_logger(__name__)

AGAIN_SECONDS = 0.5


class Censuses:
    """Looks at all processes off the loop, once for all who asked in the meantime."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._current: asyncio.Task[Census] | None = None
        self._next: asyncio.Task[Census] | None = None

    async def take(self) -> Census:
        """A census that begins after this call."""
        if self._next is None:
            self._next = asyncio.create_task(self._after(self._current))
        return await asyncio.shield(self._next)

    async def _after(self, previous: asyncio.Task[Census] | None) -> Census:
        if previous is not None:
            await asyncio.wait([previous])
        self._current, self._next = self._next, None
        return await asyncio.to_thread(take_census, self._run)


class Ending:
    """The end of one service; `leader` is the process that was started for it, if it is known."""

    def __init__(self, service: str, mark: int, leader: Watched | None, censuses: Censuses) -> None:
        self._service, self._mark = service, mark
        self._leader = leader
        self._censuses = censuses
        self._patience: asyncio.Timeout | None = None
        self._at_most = float("inf")
        self.killed_at: float | None = None
        """When SIGKILL was sent, by the loop's clock."""

    def shorten(self, seconds: float) -> None:
        """Be patient for no longer than this from now on, whatever was said before."""
        self._at_most = min(self._at_most, seconds)
        if self._patience is not None:
            sooner = asyncio.get_running_loop().time() + seconds
            self._patience.reschedule(min(sooner, self._patience.when() or sooner))

    async def run(self, number: Signals, patience: float) -> None:
        """Send `number` to all, then, after `patience` seconds, SIGKILL; return when nothing is left."""
        asked = self._signal_group(number)
        try:
            async with asyncio.timeout(min(patience, self._at_most)) as self._patience:
                if self._leader is not None:
                    await self._leader.wait()
                await self._until_gone(number, spared=asked)
                return
        except TimeoutError:
            log.warning("service did not end in time and is killed", service=self._service)
        finally:
            self._patience = None
        self.killed_at = asyncio.get_running_loop().time()
        self._signal_group(SIGKILL)
        await self._until_gone(SIGKILL, spared=False)
        if self._leader is not None:
            await self._leader.wait()

    async def _until_gone(self, number: Signals, *, spared: bool) -> None:
        """Signal what is found until nothing is; `spared`: the leader's own group has had the signal."""
        seen = self._leader.seen if self._leader else None
        while True:
            try:
                family = (await self._censuses.take()).family(self._mark, seen)
                if not family:
                    return
                await self._until_ended(family, number, spared=seen.pid if spared and seen else None)
            except OSError as error:
                log.error("cannot look at processes, trying again", service=self._service, error=str(error))
                await asyncio.sleep(AGAIN_SECONDS)

    async def _until_ended(self, family: Iterable[Seen], number: Signals, spared: int | None) -> None:
        watched: list[Watched] = []
        try:
            watched.extend(process for member in family if (process := Watched.of_other(member)))
            for process in watched:
                if process.seen.group != spared:
                    self._signal(process, number)
            for process in watched:
                await process.wait()
        finally:
            for process in watched:
                process.close()

    def _signal_group(self, number: Signals) -> bool:
        """Whether there was a leader to signal the group of."""
        if self._leader is None or not self._leader.is_alive():
            return False
        try:
            self._leader.send_to_group(number)
        except PermissionError:
            _refused(self._service, self._leader.seen)
        return True

    def _signal(self, process: Watched, number: Signals) -> None:
        try:
            process.send(number)
        except PermissionError:
            _refused(self._service, process.seen)


def _refused(service: str, seen: Seen) -> None:
    log.error("a process of the service belongs to another user and cannot be ended", service=service, pid=seen.pid)
