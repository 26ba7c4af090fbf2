"""The processes of one service that is not asleep: start, restart after a crash, and end.

Each such service has one task, a sleeping one has none. Reports come from that task, never from within a call.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from signal import SIGTERM

import structlog

from reconciler.concurrency import Backoff, in_thread
from reconciler.core.reasons import Diagnosis, Reason
from reconciler.local.processes.launch import Launcher, LaunchError
from reconciler.local.processes.log_file import LogFile
from reconciler.local.processes.notes import ProcessNote, ProcessNotes
from reconciler.local.processes.pidfd import WatchedProcess
from reconciler.local.processes.probes import Prober, Unreadiness, accepts, unreadiness
from reconciler.local.processes.procfs import ProcessInfo
from reconciler.local.processes.program import Program
from reconciler.local.processes.succession import ANYTHING, Claims, Succession, claims
from reconciler.local.processes.termination import CensusTaker, Termination
from reconciler.local.sockets import ListeningSocket, PortAllocator, command_of, is_free, sockets_of
from reconciler.ports.backend import WorkloadStatus

log = structlog.get_logger(__name__)

BACKOFF = Backoff(0.1, 10.0)
STABLE_AFTER_SECONDS = 10.0
"""A program that was reachable for this long restarts with the shortest pause after a crash."""
ROTATE_EVERY_SECONDS = 30.0
NOTE_AGAIN_SECONDS = 1.0
"""Time after which a note that could not be written is written again."""
LOOK_SECONDS = 1.0
"""Pause between two looks at a program that starts."""
LATER_LOOK_SECONDS = 10.0
OFTEN_SECONDS = 60.0
"""A program that takes longer is looked at less often."""
LEFTOVER_SECONDS = 1.0
"""Time for the children of a crashed program to end by themselves."""


@dataclass(frozen=True, slots=True)
class ProcessContext:
    """The collaborators that all services of one backend share."""

    notes: ProcessNotes
    launcher: Launcher
    ports: PortAllocator
    censuses: CensusTaker
    prober: Prober
    succession: Succession


class ServiceProcess:
    """The processes of one service."""

    def __init__(self, service: str, program: Program, shared: ProcessContext, mark: int | None = None) -> None:
        """`mark` is the mark of its processes, if it does not follow from the name of the service."""
        self.service = service
        self._mark = shared.notes.mark(service) if mark is None else mark
        self.program = program
        self._shared = shared
        self.running = WorkloadStatus(service, 1)
        """The latest report."""
        self._reported: WorkloadStatus | None = None
        self.wanted = False
        """True while it should run."""
        self._interrupt = asyncio.Event()
        self._process: WatchedProcess | None = None
        self._note: ProcessNote | None = None
        self._unnoted = asyncio.Event()
        """Set while the note could not be written."""
        self._strays = False
        self._output: LogFile | None = None
        self._termination: Termination | None = None
        self._at_most = float("inf")
        self._crashes = 0
        self.claims: Claims = frozenset()
        """The claims of the running program; empty while none runs."""

    @property
    def outdated(self) -> bool:
        """True if it runs an earlier program."""
        return self._note is not None and self._note.digest != self.program.digest

    @property
    def port(self) -> int | None:
        """The port of the running program; None while none runs."""
        return self._note.port if self._process and self._note else None

    @property
    def killed_at(self) -> float | None:
        """The time at which SIGKILL was sent to what still runs, by the loop's clock."""
        return self._termination.killed_at if self._termination else None

    def adopt(self, process: WatchedProcess, note: ProcessNote) -> None:
        """Adopt the process that another zenvoy started and noted; before `run`."""
        self._process, self._note, self.wanted = process, note, True
        self.claims = frozenset(note.claims)
        self._shared.ports.keep(self.service, note.port)
        self._output = LogFile(self._shared.notes.state_dir.log(self.service))
        self.running = replace(self.running, milestones=note.milestones)
        good = note.reachable or self.program.is_ready_by_dial
        if good and not self.outdated and accepts(note.port):
            milestones = {"reachable": time.time(), **note.milestones}
            ordered = dict(sorted(milestones.items(), key=lambda reached: reached[1]))
            self.running = WorkloadStatus(self.service, 1, (f"127.0.0.1:{note.port}",), None, ordered)

    def clean_up(self) -> None:
        """End processes without a note first; before `run`."""
        self._strays, self.claims = True, ANYTHING
        self.running = replace(self.running, end="ended by zenvoy, which could not adopt it")

    def stop(self, at_most: float = float("inf")) -> WorkloadStatus:
        """End it within its drain timeout, and within `at_most` seconds.

        Returns the report without endpoints, which the caller passes on.
        """
        self.wanted = False
        self._at_most = min(self._at_most, at_most)
        if self._termination is not None:
            self._termination.shorten(at_most)
        self._interrupt.set()
        self.running = self._reported = replace(self.running, endpoints=())
        return self.running

    def change(self, program: Program) -> None:
        """Replace the program; a process that is reachable continues."""
        changed, self.program = self.program != program, program
        if self._note and self._note != (note := _noted(self._note, program)):
            self._write(note)
        if changed and not self.running.endpoints:
            self.restart()

    def restart(self, end: str | None = None) -> None:
        """End the process; if the service should run, start it from the present program. `end` is reported."""
        if end is not None:
            self.running = replace(self.running, end=end)
        self._crashes = 0
        self._interrupt.set()

    async def run(self, report: Callable[[WorkloadStatus], None]) -> None:
        """Start, watch and end processes until none runs and none should."""
        self._report_to = report
        while self.wanted or self._process or self._strays:
            if not (self._process or self._strays) and await self._may_start():
                self._launch()
            failed = await self._live()
            again = await self._end(failed)
            if failed:
                await self._rest(again)
            self._interrupt.clear()

    async def _may_start(self) -> bool:
        """Wait until the program's predecessors have ended; return False if interrupted."""
        succession, waited = self._shared.succession, False
        while not self._interrupt.is_set() and (others := succession.predecessors(self.service)):
            waited = True
            name, passing = min(others.items())
            common = min(passing, key=lambda claim: (claim.startswith("command"), claim))
            message = f"waits for the end of {name}, whose program has the same {common}"
            self._report(replace(self.running, diagnosis=Diagnosis(Reason.NOT_STARTED, message)))
            await _either(succession.change(), self._interrupt.wait())
        if waited:
            self._report(replace(self.running, diagnosis=None))
        return not self._interrupt.is_set()

    def _launch(self) -> None:
        """Start the program, or report the reason why not."""
        notes, ports, port = self._shared.notes, self._shared.ports, self.program.port
        try:
            if port is None:
                port = ports.allocate(self.service)
            elif not is_free(port, reusing=True):
                user = command_of(port) or "another program"
                raise LaunchError(f"port {port} is in use by {user}; stop it, or choose another port")
            self._output = LogFile(notes.state_dir.log(self.service))
            self._process = self._shared.launcher.start(self.service, self.program, port, self._output)
        except (LaunchError, OSError) as error:
            diagnosis = Diagnosis(Reason.NOT_STARTED, f"cannot be started: {error}")
            self._report(replace(self.running, diagnosis=diagnosis))
            return
        self.claims = claims(self.program)
        seen, started = self._process.seen, {"started": time.time()}
        note = ProcessNote(notes.boot, seen.pid, seen.started_ticks, port, self.program.digest, milestones=started)
        self._write(_noted(replace(note, claims=sorted(self.claims)), self.program))
        ports.keep(self.service, port)
        self._report(replace(self.running, milestones=started))

    async def _live(self) -> bool:
        """Wait until the process ends or is interrupted; return whether it ended by itself, or did not start."""
        process = self._process
        if process is None:
            return not self._strays
        if not self.running.endpoints and not self._interrupt.is_set():
            await _either(self._until_ready(process), process.wait(), self._interrupt.wait())
        reached, stable_at = bool(self.running.endpoints), time.monotonic() + STABLE_AFTER_SECONDS
        await _either(process.wait(), self._interrupt.wait(), self._rotate_log(), self._note_again())
        if reached and time.monotonic() > stable_at:
            self._crashes = 0
        return process.exited.done() and not self._interrupt.is_set()

    async def _until_ready(self, process: WatchedProcess) -> None:
        """Wait until the program is ready, and report it."""
        assert self._note is not None
        port, program, last = self._note.port, self.program, Unreadiness()
        explaining = asyncio.create_task(self._explain_start(process, port, program, last))
        try:
            await self._shared.prober.until_ready(self.service, port, program, last)
        finally:
            explaining.cancel()
        if process.is_alive() and not self._interrupt.is_set():
            milestones = {**self._note.milestones, "reachable": time.time()}
            self._report(WorkloadStatus(self.service, 1, (f"127.0.0.1:{port}",), None, milestones))
            await asyncio.sleep(0)  # a client waits for the effects of the report, none for the note
            self._write(replace(self._note, reachable=True, milestones=milestones))

    async def _rotate_log(self) -> None:
        """Keep the log file small while the program runs."""
        while True:
            await asyncio.sleep(ROTATE_EVERY_SECONDS)
            if self._output:
                await in_thread(self._output.rotate, "log rotation")

    async def _note_again(self) -> None:
        """Write the note of a running program that could not be written, as soon as possible."""
        while True:
            await self._unnoted.wait()
            await asyncio.sleep(NOTE_AGAIN_SECONDS)
            if self._note is not None:
                self._write(self._note)

    async def _end(self, failed: bool) -> bool:
        """End all processes that are left; return whether the program may be started again."""
        process, shared, again = self._process, self._shared, True
        if process is None and not self._strays:
            return again
        diagnosis = self.running.diagnosis
        if process and failed:
            if process.exit_code == 0:  # a daemon was never reachable, or has left processes behind
                again = "reachable" in self.running.milestones and not await self._family(process)
            diagnosis = self._crash(process, again)
        self._report(replace(self.running, endpoints=(), diagnosis=diagnosis))
        self._termination = Termination(self.service, self._mark, process, shared.censuses)
        stop_signal, timeout = self.program.stop_signal, self.program.drain_timeout
        if failed and again:
            stop_signal, timeout = SIGTERM, LEFTOVER_SECONDS
        await self._termination.run(stop_signal, min(timeout, self._at_most))
        self._termination, self._process, self._strays = None, None, False
        self.claims = frozenset()
        shared.succession.ended(self.service)
        self._drop_note()
        if self._note is not None:
            shared.ports.release(self._note.port)
            self._note = None
        return again

    async def _rest(self, again: bool) -> None:
        """Wait longer after each crash; without `again`, until the program changes or the service sleeps."""
        if not again:
            await self._interrupt.wait()
            return
        pause = BACKOFF.delay(self._crashes)
        self._crashes += 1
        await _either(asyncio.sleep(pause), self._interrupt.wait())

    def _crash(self, process: WatchedProcess, again: bool) -> Diagnosis:
        """Log how the process ended, and return it."""
        how, remedy = process.exited.result(), ""
        if not again:
            how += " (it must stay in the foreground)"
            remedy = "; it is started again once its command has changed or it has slept"
        after = f" after {process.seen.age_seconds():.1f} s"
        lines = self._output.last_lines() if self._output else ""
        log.warning("service ended by itself", service=self.service, how=how, output=lines)
        code = Reason.KILLED if process.was_killed else Reason.EXITED
        return Diagnosis(code, f"{how}{after}{remedy}: {lines}" if lines else f"{how}{after}{remedy}")

    async def _explain_start(self, process: WatchedProcess, port: int, program: Program, last: Unreadiness) -> None:
        """Report why the program is not ready: what lasts once it was seen twice, and the rest when it is slow."""
        ticks, before, reported = asyncio.get_running_loop().time, None, None
        began, pause = ticks(), min(LOOK_SECONDS, program.slow_after / 2)
        while True:
            await asyncio.sleep(pause if ticks() - began < OFTEN_SECONDS else LATER_LOOK_SECONDS)
            found = unreadiness(port, program, accepts(port), last, *await self._sockets(process))
            is_due = ticks() - began >= program.slow_after or (found.lasts and found == before)
            if is_due and found != reported and not self.running.endpoints:
                message = f"started {ticks() - began:.0f} s ago, but {found.message}"
                self._report(replace(self.running, diagnosis=Diagnosis(Reason.NOT_READY, message)))
                reported = found
            before = found

    async def _sockets(self, process: WatchedProcess) -> tuple[list[ListeningSocket], list[str]]:
        """Return the TCP sockets on which the program listens, and the others; empty if they cannot be read."""
        pids = [seen.pid for seen in await self._family(process)]
        return await in_thread(lambda: sockets_of(pids), "listening sockets")

    async def _family(self, process: WatchedProcess) -> frozenset[ProcessInfo]:
        """Return the processes of the service; empty if they cannot be listed."""
        try:
            return (await self._shared.censuses.take()).family(self._mark, process.seen)
        except OSError as error:
            log.error("failed to list processes", service=self.service, error=str(error))
            return frozenset()

    def _write(self, note: ProcessNote) -> None:
        self._note = note
        try:
            self._shared.notes.write(self.service, note)
        except OSError as error:
            if not self._unnoted.is_set():
                log.error("failed to write the note of a process; retrying", service=self.service, error=str(error))
            self._unnoted.set()
        else:
            self._unnoted.clear()

    def _drop_note(self) -> None:
        try:
            self._shared.notes.drop(self.service)
        except OSError as error:  # as on a file system that became read-only; the next note replaces it
            log.error("failed to delete the note of a process", service=self.service, error=str(error))
        self._unnoted.clear()

    def _report(self, running: WorkloadStatus) -> None:
        self.running = running
        if running != self._reported:
            self._reported = running
            self._report_to(running)


def _noted(note: ProcessNote, program: Program) -> ProcessNote:
    """Return the note with the settings that end the program, for a zenvoy that no longer knows its service."""
    return replace(note, stop_signal=int(program.stop_signal), drain_timeout=program.drain_timeout)


async def _either(*awaited: Awaitable[object]) -> None:
    """Wait for the first, cancel the others, and raise the error of the first."""
    tasks = [asyncio.ensure_future(one) for one in awaited]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in done:
        task.result()
