"""The place where services run as processes of this machine; implements `reconciler.ports.backend.Backend`.

Rule: the processes outlive a zenvoy that is killed, or that leaves, and the next one adopts them; only `close` ends
them. A service that sleeps costs an entry in a table. Counterparts: `unit.py`, which runs one service; `site.py`, what
is kept on disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import structlog

from reconciler.local.processes.notes import Note, Site
from reconciler.local.processes.pidfd import Watched
from reconciler.local.processes.procfs import take_census
from reconciler.local.processes.program import Program
from reconciler.local.processes.readiness import Dialler
from reconciler.local.processes.service_process import Shared, Unit
from reconciler.local.processes.succession import Succession
from reconciler.local.processes.termination import Censuses
from reconciler.plan import AtLeast, Scale, Zero
from reconciler.ports.backend import Report, Running

log = structlog.get_logger(__name__)

KILL_SECONDS = 5.0
"""How long a process may take to end after SIGKILL until it is reported as left behind."""


class ProcessBackend:
    """Starts and stops the services' commands. Raises `StateDirInUse` when another zenvoy has the state directory.

    Made and used on one event loop. `configure` reports what is known of every new service before it returns;
    everything else is reported from the loop, never from within a call.
    """

    def __init__(self, state_dir: Path, report: Report, umask: int = -1) -> None:
        """`umask` is that of the programs; -1: ours."""
        self._report = report
        self._site = Site(state_dir)
        self._shared = Shared(self._site, Censuses(self._site.run), Dialler(self._site.run, umask), Succession(), umask)
        self._programs: dict[str, Program] | None = None
        self._leaving: frozenset[str] = frozenset()
        self._units: dict[str, Unit] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._retired: set[str] = set()
        self._closing = False

    def configure(self, programs: Mapping[str, Program], leaving: frozenset[str] = frozenset()) -> None:
        """These are the services from now on; what does not change is not touched.

        The first call adopts what an earlier zenvoy left, or ends it when its program is another one now or is no more.
        Later, a service that is no more is stopped, and is not reported again. One that runs and whose program is
        another one now is `outdated`: it goes on as it is until it is put to sleep, restarted, or ends by itself.
        Those that are `leaving` are no more either, but are stopped only once they are not named here any more.
        """
        before, self._programs = self._programs, dict(programs)
        stopped = ((before or {}).keys() | self._leaving) - programs.keys() - leaving
        self._leaving = leaving
        self._site.reserve(program.port for program in programs.values() if program.port is not None)
        if before is None:
            self._take_over()
        self._shared.succession.configure(self._programs, {name: unit.claims for name, unit in self._units.items()})
        for service in stopped:
            self._site.forget(service)
            if unit := self._units.get(service):
                unit.stop()
        for service, program in programs.items():
            unit = self._units.get(service)
            if unit is not None:
                unit.change(program)
            if before is None or service not in before:
                self._report(unit.running if unit else Running(service, 0))

    def outdated(self) -> frozenset[str]:
        """Services that run, but from another program than the present one: to be drained, or restarted."""
        programs = self._programs or {}
        return frozenset(unit.service for unit in self._units.values() if unit.outdated and unit.service in programs)

    def withdraw(self, service: str) -> None:
        """Say that the service cannot be dialled, though it can: new connections wait, those in flight may end."""
        if unit := self._units.get(service):
            self._tell(unit.withdraw())

    def restore(self, service: str) -> None:
        """Undo `withdraw`."""
        if unit := self._units.get(service):
            self._tell(unit.restore())

    def restart(self, service: str) -> None:
        """End what runs of the service and start it again, from its present program. Cuts its connections."""
        if unit := self._units.get(service):
            unit.restart()

    def log_of(self, service: str) -> Path:
        """The file with the service's output."""
        return self._site.logs / f"{service}.log"

    def converge(self, service: str, scale: Scale) -> None:
        """Start it, stop it, or leave it as it is; a service that is not configured is being stopped already."""
        program = (self._programs or {}).get(service)
        unit = self._units.get(service)
        if program is None or self._closing or service in self._retired:
            return
        match scale:
            case AtLeast():
                if unit is None:
                    unit = self._run(Unit(service, program, self._shared))
                    if self._site.has_note(service):
                        unit.clean_up()
                unit.want()
            case Zero():
                if unit is not None and unit.wanted:
                    self._tell(unit.stop())

    def retire(self, service: str) -> None:
        """Stop it for good; nothing of it is reported any more."""
        self._retired.add(service)
        if unit := self._units.get(service):
            unit.stop()

    @property
    def ending(self) -> Mapping[str, float]:
        """The services that have not ended, with the drain time-out of each."""
        return {name: unit.program.drain_timeout for name, unit in self._units.items()}

    def kill(self) -> None:
        """Send SIGKILL to whatever is still ending."""
        for unit in self._units.values():
            unit.stop(at_most=0.0)

    async def close(self) -> None:
        """Stop every service, side by side; each has its drain time-out, then SIGKILL."""
        self._closing = True
        for unit in self._units.values():
            unit.stop()
        while self._tasks and not self._are_left_behind():
            await asyncio.wait(self._tasks, timeout=1.0)
        for service in self._units:
            log.error("service did not end and is left behind", service=service)
        self.leave()

    def _are_left_behind(self) -> bool:
        """Return whether SIGKILL has not ended those that are left."""
        now, killed = asyncio.get_running_loop().time(), [unit.killed_at for unit in self._units.values()]
        return all(at is not None and now > at + KILL_SECONDS for at in killed)

    def leave(self) -> None:
        """Look after services no more: they go on as they are, for the next zenvoy to adopt."""
        self._closing = True
        for task in self._tasks:
            task.cancel()
        self._site.close()

    def _take_over(self) -> None:
        """Find what an earlier zenvoy started."""
        notes = self._site.notes()
        for service, note in notes.items():
            seen = self._site.process(service, note)
            process = Watched.of_other(seen) if seen else None
            if process is not None:
                self._adopt(service, process, note)
        names = {self._site.mark(name): name for name in (*notes, *(self._programs or {}))}
        for mark in take_census(self._site.run).by_mark:
            service = names.get(mark, f"unknown-{mark:x}")
            if service not in self._units:
                log.warning("unnoted processes are ended", service=service)
                self._run(Unit(service, self._program(service, notes.get(service)), self._shared, mark)).clean_up()
        for service in notes.keys() - self._units.keys():
            self._site.drop(service)

    def _adopt(self, service: str, process: Watched, note: Note) -> None:
        unit = Unit(service, self._program(service, note), self._shared)
        unit.adopt(process, note)
        if service not in (self._programs or {}):
            unit.stop()
        elif unit.outdated:
            unit.restart()
        log.info("process is adopted", service=service, pid=note.pid, outdated=unit.outdated)
        self._run(unit)

    def _program(self, service: str, note: Note | None) -> Program:
        """Return the service's program; for a service that is gone, one that its processes are ended by."""
        if program := (self._programs or {}).get(service):
            return program
        return note.program() if note else Program(command=(), working_directory=Path("/"))

    def _run(self, unit: Unit) -> Unit:
        self._units[unit.service] = unit
        task = asyncio.create_task(self._until_asleep(unit), name=f"processes of {unit.service}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return unit

    async def _until_asleep(self, unit: Unit) -> None:
        over = Running(unit.service, 0)
        try:
            await unit.run(self._tell)
        except Exception as error:
            log.exception("service is given up until its next wake: a fault of zenvoy", service=unit.service)
            over = Running(unit.service, None, trouble=f"given up: {error!r}")
        # Without a pause between the unit's end and this: a call in between would be lost on it.
        del self._units[unit.service]
        self._tell(over)

    def _tell(self, running: Running) -> None:
        if running.service in (self._programs or {}) and running.service not in self._retired:
            self._report(running)
