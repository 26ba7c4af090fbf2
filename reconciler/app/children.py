"""The processes of `zenvoy up`: started in sessions of their own, started again when they die, ended in order.

What runs is marked in its environment, so that after a SIGKILL the next `up` ends what was left; a file says what runs,
for people. Services are not among it: those are the process backend's, and are adopted.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog

from reconciler.adapters.processes import private_files
from reconciler.adapters.processes.open_files import raise_of
from reconciler.adapters.processes.procfs import CHILD_MARK, children_of, look, run_id

log = structlog.get_logger()

BACKOFF_SECONDS = (0.05, 2.0)
"""The first and the longest pause before a child is started again."""
STEADY_SECONDS = 10.0
"""A child that ran this long starts again without a pause."""


class Note(msgspec.Struct, frozen=True):
    """A process, told from a later one of the same id by its start time (clock ticks since boot)."""

    name: str
    pid: int
    started: int


@dataclass(frozen=True, slots=True)
class Child:
    """A process to keep running."""

    name: str
    command: Sequence[str]
    output: Path | None = None
    """Where its output is appended; None: where ours goes."""
    stop_seconds: float = 1.0
    """How long it has to end after SIGTERM, before SIGKILL."""
    descriptors: tuple[int, ...] = ()
    """Ours, handed down under the same numbers."""
    raises_open_files: bool = False
    """Whether its soft limit on open files is raised to the hard one, as it does not do so itself."""
    umask: int = -1
    """Its umask; -1: ours."""


def started_at(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot, or None when there is none, or only its zombie."""
    seen = look(pid)
    return None if seen is None or seen.ended else seen.started_ticks


class Children:
    """Keeps children running until `close`; `cwd` is their working directory, `notes` the file that names them."""

    def __init__(self, notes: Path, cwd: Path) -> None:
        self._notes, self._cwd = notes, cwd
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._order: list[Child] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def end_leftovers(self) -> None:
        """End what an `up` that was killed left running: what carries its mark, whatever the notes say."""
        left = [Note(name, seen.pid, seen.started_ticks) for name, seen in children_of(run_id(self._cwd))]
        for note in left:
            log.info("a process of an earlier run is ended", name=note.name, pid=note.pid)
            with suppress(ProcessLookupError):
                os.kill(note.pid, signal.SIGKILL)
        for note in left:
            await _gone(note)

    def start(self, child: Child) -> None:
        """Keep it running from now on."""
        self._order.append(child)
        self._tasks[child.name] = asyncio.create_task(self._keep(child))

    def signal(self, name: str, number: int) -> None:
        """Send a signal to a child, if it runs."""
        if (process := self._running.get(name)) and process.returncode is None:
            process.send_signal(number)

    async def halt(self) -> None:
        """Start nothing again from now on."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def stop(self, name: str) -> None:
        """Have a child end, if it runs, and wait for that, however long it takes."""
        self.signal(name, signal.SIGTERM)
        if process := self._running.get(name):
            await process.wait()

    async def close(self) -> None:
        """End all, the last started first; each has its `stop_seconds`."""
        for child in reversed(self._order):
            self._tasks[child.name].cancel()
            await asyncio.gather(self._tasks[child.name], return_exceptions=True)
            if (process := self._running.get(child.name)) and process.returncode is None:
                await _end(process, child.stop_seconds)
        self._notes.unlink(missing_ok=True)

    async def _keep(self, child: Child) -> None:
        pause, longest = BACKOFF_SECONDS
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                how = _how(await self._run(child))
            except OSError as error:
                how = f"cannot be started: {error}"
            if loop.time() - began > STEADY_SECONDS:
                pause = BACKOFF_SECONDS[0]
            log.warning(f"{child.name} ended and is started again", how=how, seconds=round(pause, 2))
            await asyncio.sleep(pause)
            pause = min(pause * 2, longest)

    async def _run(self, child: Child) -> int:
        output = private_files.open_append(child.output) if child.output else None
        try:
            process = await asyncio.create_subprocess_exec(
                *child.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._cwd,
                env={**os.environ, CHILD_MARK: f"{run_id(self._cwd)}/{child.name}"},
                start_new_session=True,
                pass_fds=child.descriptors,
                umask=child.umask,
            )
        finally:
            if output is not None:
                os.close(output)
        if child.raises_open_files:
            raise_of(process.pid)
        self._running[child.name] = process
        self._note()
        return await process.wait()

    def _note(self) -> None:
        notes = []
        for name, process in self._running.items():
            if process.returncode is None and (started := started_at(process.pid)) is not None:
                notes.append(Note(name, process.pid, started))
        try:
            private_files.write(self._notes, msgspec.json.encode(notes))
        except OSError as error:
            log.error("cannot note which processes run", file=str(self._notes), error=str(error))


async def _gone(note: Note) -> None:
    """Until a process that was killed, and that is not our child, has ended."""
    for _ in range(500):
        if started_at(note.pid) != note.started:
            return
        await asyncio.sleep(0.01)
    log.error("a process of an earlier run does not end", name=note.name, pid=note.pid)


async def _end(process: asyncio.subprocess.Process, seconds: float) -> None:
    process.terminate()
    try:
        await asyncio.wait_for(process.wait(), seconds)
    except TimeoutError:
        process.kill()
        await process.wait()


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    known = -code in {number.value for number in signal.Signals}
    return f"killed by {signal.Signals(-code).name if known else f'signal {-code}'}"
