"""Termination of all processes of one service: its process group, and processes that left the group or session.

It is complete when no process is left; the end of the leader does not imply that of its children.
Source: kill(2), setsid(2).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from signal import SIGKILL, Signals

import structlog

from reconciler.local.processes.pidfd import WatchedProcess
from reconciler.local.processes.procfs import Census, ProcessInfo, take_census

log = structlog.get_logger(__name__)

RETRY_SECONDS = 0.5


class CensusTaker:
    """Takes censuses in a thread; callers that arrive meanwhile share the next one."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._current: asyncio.Task[Census] | None = None
        self._next: asyncio.Task[Census] | None = None

    async def take(self) -> Census:
        """Return a census that begins after this call."""
        if self._next is None:
            self._next = asyncio.create_task(self._after(self._current))
        return await asyncio.shield(self._next)

    async def _after(self, previous: asyncio.Task[Census] | None) -> Census:
        if previous is not None:
            await asyncio.wait([previous])
        self._current, self._next = self._next, None
        return await asyncio.to_thread(take_census, self._run)


class Termination:
    """The end of one service; `leader` is the process that was started for it, if it is known."""

    def __init__(self, service: str, mark: int, leader: WatchedProcess | None, censuses: CensusTaker) -> None:
        self._service, self._mark = service, mark
        self._leader = leader
        self._censuses = censuses
        self._deadline: asyncio.Timeout | None = None
        self.killed_at: float | None = None
        """The time at which SIGKILL was sent, by the loop's clock."""

    def shorten(self, seconds: float) -> None:
        """Reduce the time until SIGKILL to at most this, from now on."""
        if self._deadline is not None:
            sooner = asyncio.get_running_loop().time() + seconds
            self._deadline.reschedule(min(sooner, self._deadline.when() or sooner))

    async def run(self, number: Signals, timeout: float) -> None:
        """Send `number` to all, and SIGKILL after `timeout` seconds; return when no process is left."""
        signalled = self._signal_group(number)
        try:
            async with asyncio.timeout(timeout) as self._deadline:
                if self._leader is not None:
                    await self._leader.wait()
                await self._until_gone(number, skip_group=signalled)
                return
        except TimeoutError:
            log.warning("service did not end in time and is killed", service=self._service)
        finally:
            self._deadline = None
        self.killed_at = asyncio.get_running_loop().time()
        self._signal_group(SIGKILL)
        await self._until_gone(SIGKILL, skip_group=False)
        if self._leader is not None:
            await self._leader.wait()

    async def _until_gone(self, number: Signals, *, skip_group: bool) -> None:
        """Signal all processes until none is left; `skip_group`: the leader's own group already has the signal."""
        seen = self._leader.seen if self._leader else None
        while True:
            try:
                family = (await self._censuses.take()).family(self._mark, seen)
                if not family:
                    return
                await self._until_ended(family, number, skip=seen.pid if skip_group and seen else None)
            except OSError as error:
                log.error("failed to list processes, retrying", service=self._service, error=str(error))
                await asyncio.sleep(RETRY_SECONDS)

    async def _until_ended(self, family: Iterable[ProcessInfo], number: Signals, skip: int | None) -> None:
        watched: list[WatchedProcess] = []
        try:
            watched.extend(process for member in family if (process := WatchedProcess.of_other(member)))
            for process in watched:
                if process.seen.group != skip:
                    self._signal(process, process.send, number)
            for process in watched:
                await process.wait()
        finally:
            for process in watched:
                process.close()

    def _signal_group(self, number: Signals) -> bool:
        """Signal the group of the leader; return False if there is no leader."""
        if self._leader is None or not self._leader.is_alive():
            return False
        self._signal(self._leader, self._leader.send_to_group, number)
        return True

    def _signal(self, process: WatchedProcess, send: Callable[[Signals], None], number: Signals) -> None:
        try:
            send(number)
        except PermissionError:
            text = "failed to end a process of the service: it belongs to another user"
            log.error(text, service=self._service, pid=process.seen.pid)
