"""The processes of `zenvoy up`: started in sessions of their own, replaced when they die or hang, ended in order.

What runs is marked in its environment, so that after a SIGKILL the next `up` ends what was left; a file says what runs,
for people. Services are not among it: those are the process backend's, and are adopted.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog

from reconciler.local import private_files
from reconciler.local.open_files import raise_of
from reconciler.local.process_health import BUSY_SECONDS, LOOK_SECONDS, Health, answers
from reconciler.local.processes.log_file import LogFile
from reconciler.local.processes.procfs import CHILD_MARK, children_of, cpu_seconds, process_info, run_id

log = structlog.get_logger()

BACKOFF_SECONDS = (0.05, 2.0)
"""The first and the longest pause before a child is started again."""
STEADY_SECONDS = 10.0
"""A child that ran this long starts again without a pause."""
START_LOOK_SECONDS = 0.2
"""Pause between two looks at a child that has not answered yet."""
MOST_TRIES = 5
"""A child that ended so often without ever being ready cannot start."""


class ChildNote(msgspec.Struct, frozen=True):
    """A process, told from a later one of the same id by its start time (clock ticks since boot)."""

    name: str
    pid: int
    started: int


@dataclass(frozen=True, slots=True)
class ChildProcess:
    """A process to keep running."""

    name: str
    command: Sequence[str]
    output: Path | None = None
    """The log file for its output, `NAME.log`; None: the supervisor's own output."""
    shares_stdout: bool = False
    """Its standard output goes to the supervisor's own, and only the rest to the log file."""
    health: Path | None = None
    """The Unix socket at which it answers HTTP while it works; None: it counts as ready once it is steady."""
    busy_seconds: float = BUSY_SECONDS
    """How long it may work without an answer."""
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
    seen = process_info(pid)
    return None if seen is None or seen.ended else seen.started_ticks


class ProcessSupervisor:
    """Keeps children running until `close`; `cwd` is their working directory, `notes` the file that names them."""

    def __init__(self, notes: Path, cwd: Path) -> None:
        self._notes, self._cwd = notes, cwd
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._order: list[ChildProcess] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._proven: set[str] = set()
        self.failure: str | None = None
        """Why a child can never start, once that is known; `failed` is set then."""
        self.failed = asyncio.Event()

    async def end_leftovers(self) -> None:
        """End what an `up` that was killed left running: what carries its mark, whatever the notes say."""
        left = [ChildNote(name, seen.pid, seen.started_ticks) for name, seen in children_of(run_id(self._cwd))]
        for note in left:
            log.info("a process of an earlier run is ended", name=note.name, pid=note.pid)
            with suppress(ProcessLookupError):
                os.kill(note.pid, signal.SIGKILL)
        for note in left:
            await _gone(note)

    def start(self, child: ChildProcess) -> None:
        """Keep it running from now on."""
        self._order.append(child)
        self._tasks[child.name] = asyncio.create_task(self._keep(child))

    def signal(self, name: str, number: int) -> None:
        """Send a signal to a child, if it runs."""
        if (process := self._running.get(name)) and process.returncode is None:
            with suppress(ProcessLookupError):
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
        with suppress(OSError):
            self._notes.unlink(missing_ok=True)

    async def _keep(self, child: ChildProcess) -> None:
        pause, longest = BACKOFF_SECONDS
        loop = asyncio.get_running_loop()
        for tries in itertools.count(1):
            began = loop.time()
            output = LogFile(child.output.parent, child.output.stem) if child.output else None
            try:
                how = _how(await self._run(child, output))
            except OSError as error:
                how = f"cannot be started: {error}"
            if loop.time() - began > STEADY_SECONDS:
                pause = BACKOFF_SECONDS[0]
                self._proven.add(child.name)
            last_lines = output.last_lines() if output else ""
            if tries >= MOST_TRIES and child.name not in self._proven:
                self._fail(child, how, last_lines)
                return
            said = {"output": last_lines} if last_lines else {}
            log.warning(f"{child.name} ended and is started again", how=how, seconds=round(pause, 2), **said)
            await asyncio.sleep(pause)
            pause = min(pause * 2, longest)

    def _fail(self, child: ChildProcess, how: str, last_lines: str) -> None:
        wrote = f"; its last output: {last_lines}" if last_lines else ""
        where = f"; see {child.output}" if child.output else ""
        self.failure = f"{child.name} ended {MOST_TRIES} times and was never ready: {how}{wrote}{where}"
        self.failed.set()

    async def _run(self, child: ChildProcess, output: LogFile | None) -> int:
        process = await self._start(child, output)
        if child.raises_open_files:
            raise_of(process.pid)
        self._running[child.name] = process
        self._note()
        watching = asyncio.create_task(self._watch(child, child.health, process)) if child.health else None
        try:
            return await process.wait()
        finally:
            if watching:
                watching.cancel()

    async def _start(self, child: ChildProcess, output: LogFile | None) -> asyncio.subprocess.Process:
        descriptor = output.open() if output else None
        try:
            return await asyncio.create_subprocess_exec(
                *child.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=None if child.shares_stdout else descriptor,
                stderr=descriptor,
                cwd=self._cwd,
                env={**os.environ, CHILD_MARK: f"{run_id(self._cwd)}/{child.name}"},
                start_new_session=True,
                pass_fds=child.descriptors,
                umask=child.umask,
            )
        finally:
            if descriptor is not None:
                os.close(descriptor)

    async def _watch(self, child: ChildProcess, at: Path, process: asyncio.subprocess.Process) -> None:
        """Kill the process when it hangs."""
        clock = asyncio.get_running_loop().time
        health = Health(clock(), child.busy_seconds)
        while True:
            await asyncio.sleep(LOOK_SECONDS if health.ready else START_LOOK_SECONDS)
            answered = await answers(at)
            if why := health.saw(answered, clock(), cpu_seconds(process.pid)):
                log.error(f"{child.name} hangs and is killed", why=why)
                with suppress(ProcessLookupError):
                    process.kill()
                return
            if health.ready:
                self._proven.add(child.name)

    def _note(self) -> None:
        notes = []
        for name, process in self._running.items():
            if process.returncode is None and (started := started_at(process.pid)) is not None:
                notes.append(ChildNote(name, process.pid, started))
        try:
            private_files.write(self._notes, msgspec.json.encode(notes))
        except OSError as error:
            log.error("cannot note which processes run", file=str(self._notes), error=str(error))


async def _gone(note: ChildNote) -> None:
    """Until a process that was killed, and that is not our child, has ended."""
    for _ in range(500):
        if started_at(note.pid) != note.started:
            return
        await asyncio.sleep(0.01)
    log.error("a process of an earlier run does not end", name=note.name, pid=note.pid)


async def _end(process: asyncio.subprocess.Process, seconds: float) -> None:
    """End a process; it may end by itself at any moment, which must not end `up` in the middle of its own end."""
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), seconds)
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _how(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    known = -code in {number.value for number in signal.Signals}
    return f"killed by {signal.Signals(-code).name if known else f'signal {-code}'}"
