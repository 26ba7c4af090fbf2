"""One service that is not asleep: starts its program, keeps it up, and ends it.

Rule: one task per service that runs, none for one that sleeps. Whatever happens is told by `tell`, always from that
task, never from within a call of ours. Counterparts: `backend.py`, which makes and drops units; `ending.py`;
`succession.py`, which says what must end before the program may start.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from signal import SIGTERM

import structlog

from reconciler.local.processes.launch import CannotStart, launch
from reconciler.local.processes.log_file import Output
from reconciler.local.processes.notes import Note, Site, is_free
from reconciler.local.processes.pidfd import Watched
from reconciler.local.processes.program import Program
from reconciler.local.processes.readiness import Dialler, accepts
from reconciler.local.processes.succession import ANYTHING, Claims, Succession, claims
from reconciler.local.processes.termination import Censuses, Ending
from reconciler.ports.backend import Running

log = structlog.get_logger(__name__)

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 10.0
PROVEN_SECONDS = 10.0
"""Reachable for this long, a program that crashes is started again as if it were the first time."""
LEFTOVER_SECONDS = 1.0
"""What a crashed program's children have to end by themselves."""
SLOW_SECONDS = 30.0
"""A start that takes longer than this is trouble."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What the units of one backend have in common."""

    site: Site
    censuses: Censuses
    dialler: Dialler
    succession: Succession
    umask: int


class Unit:
    """The processes of one service."""

    def __init__(self, service: str, program: Program, shared: Shared, mark: int | None = None) -> None:
        """`mark` is that of its processes, if it does not follow from the name of the service."""
        self.service = service
        self._mark = shared.site.mark(service) if mark is None else mark
        self.program = program
        self._shared = shared
        self._running = Running(service, 1)
        self._told: Running | None = None
        self._withdrawn: tuple[str, ...] = ()
        """Endpoints that could be dialled, and that nobody is told of."""
        self.wanted = False
        """Whether it should be up."""
        self._interrupt = asyncio.Event()
        self._process: Watched | None = None
        self._note: Note | None = None
        self._strays = False
        self._output: Output | None = None
        self._ending: Ending | None = None
        self._at_most = float("inf")
        self._crashes = 0
        self.claims: Claims = frozenset()
        """Of the program that runs; empty while nothing does."""

    @property
    def running(self) -> Running:
        """What there is to say of it now."""
        return self._running

    @property
    def outdated(self) -> bool:
        """Whether what runs was started from another program than the present one."""
        return self._note is not None and self._note.digest != self.program.digest

    @property
    def killed_at(self) -> float | None:
        """When SIGKILL was sent to what still runs, by the loop's clock."""
        return self._ending.killed_at if self._ending else None

    def adopt(self, process: Watched, note: Note) -> None:
        """Take over what another zenvoy started and noted; before `run`."""
        self._process, self._note, self.wanted = process, note, True
        self.claims = frozenset(note.claims)
        self._shared.site.keep_port(self.service, note.port)
        self._output = Output(self._shared.site.logs, self.service)
        self._running = replace(self._running, milestones=note.milestones)
        good = note.reachable or self.program.is_ready_by_dial
        if good and not self.outdated and accepts(note.port):
            milestones = {"reachable": time.time(), **note.milestones}
            ordered = dict(sorted(milestones.items(), key=lambda reached: reached[1]))
            self._running = Running(self.service, 1, (f"127.0.0.1:{note.port}",), None, ordered)

    def clean_up(self) -> None:
        """There are processes of the service that no note tells of: end them first; before `run`."""
        self._strays, self.claims = True, ANYTHING

    def want(self) -> None:
        """It should be up."""
        self.wanted = True

    def stop(self, at_most: float = float("inf")) -> Running:
        """It should not run; it has its drain time-out to end, but no more than `at_most` seconds.

        Nobody should dial it from now on: what it returns is for the caller to tell, if anybody is to know.
        """
        self.wanted = False
        self._withdrawn = ()
        self._at_most = min(self._at_most, at_most)
        if self._ending is not None:
            self._ending.shorten(at_most)
        self._interrupt.set()
        self._running = self._told = replace(self._running, endpoints=())
        return self._running

    def change(self, program: Program) -> None:
        """This is the program from now on; what can be used already goes on as it is."""
        changed, self.program = self.program != program, program
        if self._note and self._note != (note := _noted(self._note, program)):
            self._write(note)
        if changed and not self._running.endpoints and not self._withdrawn:
            self.restart()

    def withdraw(self) -> Running:
        """Nobody should dial it until `restore` or `restart`; what it returns is for the caller to tell."""
        if self._running.endpoints:
            self._withdrawn = self._running.endpoints
            self._running = self._told = replace(self._running, endpoints=())
        return self._running

    def restore(self) -> Running:
        """It may be dialled again, if it still runs; what it returns is for the caller to tell."""
        if self._withdrawn:
            self._running = self._told = replace(self._running, endpoints=self._withdrawn)
            self._withdrawn = ()
        return self._running

    def restart(self) -> None:
        """End what runs; if it should be up, start it again, from the present program."""
        self._crashes = 0
        self._withdrawn = ()
        self._interrupt.set()

    async def run(self, tell: Callable[[Running], None]) -> None:
        """Do all that until nothing of the service runs and nothing should."""
        self._tell = tell
        while self.wanted or self._process or self._strays:
            if not (self._process or self._strays) and await self._may_start():
                self._launch()
            failed = await self._live()
            again = await self._end(failed)
            if failed:
                await self._rest(again)
            self._interrupt.clear()

    async def _may_start(self) -> bool:
        """Wait until those that the program follows have ended; return False if interrupted."""
        succession, waited = self._shared.succession, False
        while not self._interrupt.is_set() and (others := succession.predecessors(self.service)):
            waited = True
            name, passing = min(others.items())
            common = min(passing, key=lambda claim: (claim.startswith("command"), claim))
            self._say(
                replace(self._running, trouble=f"waits for the end of {name}, whose program has the same {common}")
            )
            await _either(succession.change(), self._interrupt.wait())
        if waited:
            self._say(replace(self._running, trouble=None))
        return not self._interrupt.is_set()

    def _launch(self) -> None:
        """Start the program, or say why not."""
        site, port = self._shared.site, self.program.port
        try:
            if port is None:
                port = site.free_port(self.service)
            elif not is_free(port, reusing=True):
                raise CannotStart(f"port {port} is in use by another program")
            self._output = Output(site.logs, self.service)
            self._process = launch(self.service, self.program, port, site.run, self._output, self._shared.umask)
        except (CannotStart, OSError) as error:
            self._say(replace(self._running, trouble=f"cannot be started: {error}"))
            return
        self.claims = claims(self.program)
        seen, started = self._process.seen, {"started": time.time()}
        note = Note(site.boot, seen.pid, seen.started_ticks, port, self.program.digest, milestones=started)
        self._write(_noted(replace(note, claims=sorted(self.claims)), self.program))
        site.keep_port(self.service, port)
        self._say(replace(self._running, milestones=started))

    async def _live(self) -> bool:
        """Wait until it has ended or shall end; whether it ended, or did not even start, without being asked to."""
        process = self._process
        if process is None:
            return not self._strays
        if not self._running.endpoints and not self._interrupt.is_set():
            await _either(self._greet(process), process.wait(), self._interrupt.wait())
        reached, proven_at = bool(self._running.endpoints), time.monotonic() + PROVEN_SECONDS
        await _either(process.wait(), self._interrupt.wait())
        if reached and time.monotonic() > proven_at:
            self._crashes = 0
        return process.exited.done() and not self._interrupt.is_set()

    async def _greet(self, process: Watched) -> None:
        """Return once the program can be used, and say so."""
        assert self._note is not None
        port, program = self._note.port, self.program
        slow = asyncio.get_running_loop().call_later(SLOW_SECONDS, self._say_slow, port, program)
        try:
            await self._shared.dialler.until_reachable(self.service, port, program)
        finally:
            slow.cancel()
        if process.is_alive() and not self._interrupt.is_set():
            milestones = {**self._note.milestones, "reachable": time.time()}
            self._say(Running(self.service, 1, (f"127.0.0.1:{port}",), None, milestones))
            await asyncio.sleep(0)  # what this sets off goes out first: somebody waits for it, and nobody for the note
            self._write(replace(self._note, reachable=True, milestones=milestones))

    async def _end(self, failed: bool) -> bool:
        """End everything of it that is left; return whether it may be started again."""
        process, shared, again = self._process, self._shared, True
        if process is None and not self._strays:
            return again
        self._withdrawn = ()
        trouble = self._running.trouble
        if process and failed:
            again = not (process.exit_code == 0 and await self._daemonized(process))
            trouble = self._crash(process, again)
        self._say(replace(self._running, endpoints=(), trouble=trouble))
        self._ending = Ending(self.service, self._mark, process, shared.censuses)
        self._ending.shorten(self._at_most)
        signal, patience = self.program.stop_signal, self.program.drain_timeout
        if failed and again:
            signal, patience = SIGTERM, LEFTOVER_SECONDS
        await self._ending.run(signal, patience)
        self._ending, self._process, self._strays = None, None, False
        self.claims = frozenset()
        shared.succession.ended(self.service)
        shared.site.drop(self.service)
        if self._note is not None:
            shared.site.give_back(self._note.port)
            self._note = None
        return again

    async def _daemonized(self, process: Watched) -> bool:
        """Return whether a program that exited with 0 was never reachable, or has left processes behind."""
        if "reachable" not in self._running.milestones:
            return True
        try:
            census = await self._shared.censuses.take()
        except OSError as error:
            log.error("cannot look at processes", service=self.service, error=str(error))
            return False
        return bool(census.family(self._mark, process.seen))

    async def _rest(self, again: bool) -> None:
        """Wait longer after each crash; without `again`, until the program changes or the service sleeps."""
        if not again:
            await self._interrupt.wait()
            return
        pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2**self._crashes) * random.uniform(0.8, 1.2)
        self._crashes = min(self._crashes + 1, 16)
        await _either(asyncio.sleep(pause), self._interrupt.wait())

    def _crash(self, process: Watched, again: bool) -> str:
        """Why it ended, for people."""
        how, remedy = process.exited.result(), ""
        if not again:
            how += " (it must stay in the foreground)"
            remedy = "; it is started again once its command has changed or it has slept"
        started = self._running.milestones.get("started")
        after = f" after {max(0.0, time.time() - started):.1f} s" if started else ""
        lines = self._output.last_lines() if self._output else ""
        log.warning("service ended by itself", service=self.service, how=how, output=lines)
        return f"{how}{after}{remedy}: {lines}" if lines else f"{how}{after}{remedy}"

    def _say_slow(self, port: int, program: Program) -> None:
        missing = f"nothing listens on 127.0.0.1:{port}"
        if accepts(port) and program.ready_path:
            missing = f"nothing answers GET {program.ready_path} well"
        elif accepts(port) and program.ready_command:
            missing = f"{program.ready_command[0]} does not end with 0"
        self._say(replace(self._running, trouble=f"started {SLOW_SECONDS:.0f} s ago, but {missing} yet"))

    def _write(self, note: Note) -> None:
        self._note = note
        try:
            self._shared.site.write(self.service, note)
        except OSError as error:
            log.error("cannot note which process was started", service=self.service, error=str(error))

    def _say(self, running: Running) -> None:
        self._running = running
        if running != self._told:
            self._told = running
            self._tell(running)


def _noted(note: Note, program: Program) -> Note:
    """Return the note with what ends the program, for a zenvoy that does not know its service any more."""
    return replace(note, stop_signal=int(program.stop_signal), drain_timeout=program.drain_timeout)


async def _either(*awaited: Awaitable[object]) -> None:
    """Return when the first of them is done; the others are cancelled. Raises what it raised."""
    tasks = [asyncio.ensure_future(one) for one in awaited]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in done:
        task.result()
