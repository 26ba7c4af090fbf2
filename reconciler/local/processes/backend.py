"""The backend for services as processes of this machine. Implements `reconciler.ports.backend.Backend`.

Processes outlive a zenvoy that is killed or that leaves, and the next zenvoy adopts them; only `close` ends them.
A sleeping service costs one table entry. `service_process.py` runs one service, `notes.py` keeps state on disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import structlog

from reconciler.core.reasons import Blocker, Diagnosis, Reason
from reconciler.local.processes.launch import Launcher
from reconciler.local.processes.notes import ProcessNote, ProcessNotes, read_notes
from reconciler.local.processes.pidfd import WatchedProcess
from reconciler.local.processes.probes import NOT_RUNNING, Prober
from reconciler.local.processes.procfs import take_census
from reconciler.local.processes.program import Program
from reconciler.local.processes.service_process import ProcessContext, ServiceProcess
from reconciler.local.processes.succession import Succession
from reconciler.local.processes.termination import CensusTaker
from reconciler.local.sockets import PortAllocator
from reconciler.plan import AtLeast, Scale, Zero
from reconciler.ports.backend import Report, WorkloadStatus

log = structlog.get_logger(__name__)

KILL_SECONDS = 5.0
"""Time after SIGKILL after which a process is reported as left behind."""

STOPPED = "stopped together with zenvoy up"
MACHINE_RESTARTED = "ended when the machine was restarted"
ENDED_MEANWHILE = "ended while zenvoy was not running"
PROGRAM_CHANGED = "restarted by zenvoy: its program changed while zenvoy was not running"


class ProcessBackend:
    """Starts and stops the services' commands, on one event loop.

    `configure` reports the status of every new service before it returns. All other reports come from the loop, never
    from within a call.
    """

    def __init__(self, state_dir: Path, report: Report, umask: int = -1) -> None:
        """Raises `StateDirInUse` if another zenvoy uses the state directory.

        `umask` is the umask of the programs; -1: that of this process.
        """
        self._report = report
        self._notes, self._ports = ProcessNotes(state_dir), PortAllocator()
        launcher, censuses = Launcher(self._notes.run, umask), CensusTaker(self._notes.run)
        self._shared = ProcessContext(self._notes, launcher, self._ports, censuses, Prober(launcher), Succession())
        self._is_configured = False
        self._programs: dict[str, Program] = {}
        self._leaving: frozenset[str] = frozenset()
        self._units: dict[str, ServiceProcess] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._retired: set[str] = set()
        self._closing = False

    def configure(self, programs: Mapping[str, Program], leaving: frozenset[str] = frozenset()) -> None:
        """Replace all services; those that do not change are not touched.

        The first call adopts processes of an earlier zenvoy, or ends them if their program has changed or is gone.
        Later, a removed service is stopped, and not reported again. A running service whose program has changed is
        `outdated`: it continues until it is put to sleep, restarted, or ends by itself. A `leaving` service is
        removed, but is stopped only by a later call that does not name it.
        """
        before, self._programs = self._programs, dict(programs)
        is_first, self._is_configured = not self._is_configured, True
        stopped = (before.keys() | self._leaving) - programs.keys() - leaving
        self._leaving = leaving
        self._ports.reserved = frozenset(one.port for one in programs.values() if one.port is not None)
        ends = self._take_over() if is_first else {}
        self._shared.succession.configure(self._programs, {name: unit.claims for name, unit in self._units.items()})
        for service in stopped:
            self._ports.forget(service)
            if unit := self._units.get(service):
                unit.stop()
        for service, program in programs.items():
            unit = self._units.get(service)
            if unit is not None:
                unit.change(program)
            if service not in before:
                end = ends.get(service, STOPPED) if is_first else None
                self._report(unit.running if unit else WorkloadStatus(service, 0, end=end))

    def outdated(self) -> frozenset[str]:
        """Return the services that run an earlier program: to be drained, or restarted."""
        return frozenset(name for name, unit in self._units.items() if unit.outdated and name in self._programs)

    async def ask_busy(self, service: str) -> Blocker | None:
        """Run the busy check of a service; return the reason to keep it awake, or None if it is idle."""
        unit = self._units.get(service)
        if unit is None or unit.port is None or not unit.program.has_busy_check:
            return NOT_RUNNING
        return await self._shared.prober.ask_busy(service, unit.port, unit.program)

    def restart(self, service: str) -> None:
        """Stop the service and start it from its present program. Cuts its connections."""
        if unit := self._units.get(service):
            unit.restart()

    def converge(self, service: str, scale: Scale) -> WorkloadStatus | None:
        """Start or stop a service; return its status without endpoints if it stops.

        One that is not configured is being stopped already.
        """
        program = self._programs.get(service)
        unit = self._units.get(service)
        if program is None or self._closing or service in self._retired:
            return None
        match scale:
            case AtLeast():
                if unit is None:
                    unit = self._run(ServiceProcess(service, program, self._shared))
                    if self._notes.has_note(service):
                        unit.clean_up()
                unit.wanted = True
            case Zero():
                if unit is not None and unit.wanted:
                    return unit.stop()
        return None

    def retire(self, service: str) -> None:
        """Stop a service for good, and report nothing of it any more."""
        self._retired.add(service)
        if unit := self._units.get(service):
            unit.stop()

    @property
    def ending(self) -> Mapping[str, float]:
        """The services that have not ended, with the drain timeout of each."""
        return {name: unit.program.drain_timeout for name, unit in self._units.items()}

    def kill(self) -> None:
        """Send SIGKILL to all processes that are still ending."""
        for unit in self._units.values():
            unit.stop(at_most=0.0)

    async def close(self) -> None:
        """Stop all services in parallel; each has its drain timeout, then SIGKILL."""
        self._closing = True
        for unit in self._units.values():
            unit.stop()
        while self._tasks and not self._are_left_behind():
            await asyncio.wait(self._tasks, timeout=1.0)
        for service in self._units:
            log.error("service did not end and is left behind", service=service)
        self.leave()

    def _are_left_behind(self) -> bool:
        """Return whether only processes are left that SIGKILL has not ended."""
        now, killed = asyncio.get_running_loop().time(), [unit.killed_at for unit in self._units.values()]
        return all(at is not None and now > at + KILL_SECONDS for at in killed)

    def leave(self) -> None:
        """Stop supervising services, which continue: the next zenvoy adopts them."""
        self._closing = True
        for task in self._tasks:
            task.cancel()
        self._notes.close()

    def _take_over(self) -> dict[str, str]:
        """Adopt or end the processes that an earlier zenvoy started.

        Returns the reasons why others ended, except those that it stopped itself.
        """
        notes, ends = read_notes(self._notes.state_dir.path), {}
        for service, note in notes.items():
            if process := self._notes.process(service, note):
                self._adopt(service, process, note)
            else:
                ends[service] = ENDED_MEANWHILE if note.boot == self._notes.boot else MACHINE_RESTARTED
        names = {self._notes.mark(name): name for name in (*notes, *self._programs)}
        for mark in take_census(self._notes.run).by_mark:
            service = names.get(mark, f"unknown-{mark:x}")
            if service not in self._units:
                log.warning("ending processes without a note", service=service)
                program = self._program(service, notes.get(service))
                self._run(ServiceProcess(service, program, self._shared, mark)).clean_up()
        for service in notes.keys() - self._units.keys():
            self._notes.drop(service)
        return ends

    def _adopt(self, service: str, process: WatchedProcess, note: ProcessNote) -> None:
        unit = ServiceProcess(service, self._program(service, note), self._shared)
        unit.adopt(process, note)
        if service not in self._programs:
            unit.stop()
        elif unit.outdated:
            unit.restart(PROGRAM_CHANGED)
        log.info("adopted process", service=service, pid=note.pid, outdated=unit.outdated)
        self._run(unit)

    def _program(self, service: str, note: ProcessNote | None) -> Program:
        """Return the service's program; for a removed service, one that can only end its processes."""
        if program := self._programs.get(service):
            return program
        return note.program() if note else Program(command=(), working_directory=Path("/"))

    def _run(self, unit: ServiceProcess) -> ServiceProcess:
        self._units[unit.service] = unit
        task = asyncio.create_task(self._until_asleep(unit), name=f"processes of {unit.service}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return unit

    async def _until_asleep(self, unit: ServiceProcess) -> None:
        over = WorkloadStatus(unit.service, 0)
        try:
            await unit.run(self._tell)
        except Exception as error:
            log.exception("giving up on a service until its next wake: this is a bug in zenvoy", service=unit.service)
            over = WorkloadStatus(unit.service, None, diagnosis=Diagnosis(Reason.OTHER, f"given up: {error!r}"))
        # No await between the end of `run` and this: a call in between would have no effect.
        del self._units[unit.service]
        self._tell(over)

    def _tell(self, running: WorkloadStatus) -> None:
        if running.service in self._programs and running.service not in self._retired:
            self._report(running)
