"""Notes about running processes, one small file per service in the state directory.

With them the next zenvoy adopts or ends processes after this one was killed. A note is replaced atomically, is read
only at the start, and counts only if its process carries the service's mark. `procfs.py` finds processes without one.
Notes are written even if the disk is full: without its note, a process would be ended by the next zenvoy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from signal import SIGTERM, Signals

import structlog

from reconciler.local import private_files
from reconciler.local.processes.mark import mark, read_mark
from reconciler.local.processes.pidfd import WatchedProcess
from reconciler.local.processes.procfs import boot_id, process_info, run_id
from reconciler.local.processes.program import Program
from reconciler.local.spare_files import SpareFiles
from reconciler.local.state_dir import StateDir

log = structlog.get_logger(__name__)

NOTES = "processes"
SPARE_NOTES = 64
"""Notes that can be written while the disk is full."""


class StateDirInUse(Exception):
    """Another zenvoy runs services from this state directory."""


@dataclass(frozen=True, slots=True)
class ProcessNote:
    """One process that runs a service."""

    boot: str
    pid: int
    started_ticks: int
    port: int
    digest: str
    """The digest of the program, see `Program.digest`."""
    reachable: bool = False
    milestones: Mapping[str, float] = field(default_factory=dict)
    claims: Sequence[str] = ()
    """The claims of the program, see `succession.claims`."""
    stop_signal: int = SIGTERM
    drain_timeout: float = 30.0

    def program(self) -> Program:
        """Return a program that can only end the process, for a service that was removed."""
        signal, patience = Signals(self.stop_signal), self.drain_timeout
        return Program(command=(), working_directory=Path("/"), stop_signal=signal, drain_timeout=patience)


class ProcessNotes:
    """The notes of a state directory, which this process has locked."""

    def __init__(self, state_dir: Path) -> None:
        """Lock the directory. Raises `StateDirInUse`, and `NotPrivate` if another user can change the directory."""
        self.state_dir = StateDir(state_dir)
        self.state_dir.make()
        self._notes = state_dir / NOTES
        private_files.make_directory(self._notes)
        try:
            self._lock = private_files.lock(state_dir / "processes.lock")
        except private_files.InUse as error:
            raise StateDirInUse(f"{state_dir} is in use by another zenvoy (pid {error})") from None
        self._files = SpareFiles(state_dir / "spare-notes", SPARE_NOTES)
        self.run = run_id(state_dir)
        self.boot = boot_id()

    def close(self) -> None:
        """Release the state directory."""
        self._lock.close()

    def mark(self, service: str) -> int:
        """Return the mark of the service's processes."""
        return mark(self.run, service)

    def process(self, service: str, note: ProcessNote) -> WatchedProcess | None:
        """Return the noted process if it still runs and belongs to the service."""
        seen = process_info(note.pid) if note.boot == self.boot else None
        if seen is None or seen.ended or seen.started_ticks != note.started_ticks:
            return None
        return WatchedProcess.of_other(seen) if read_mark(seen.pid) == self.mark(service) else None

    def has_note(self, service: str) -> bool:
        """Return whether a process of the service was started and not seen to end."""
        return (self._notes / f"{service}.json").exists()

    def write(self, service: str, note: ProcessNote) -> None:
        """Write a note. Raises OSError."""
        self._files.write(self._notes / f"{service}.json", json.dumps(asdict(note)).encode())

    def drop(self, service: str) -> None:
        """Delete the note of a service whose processes have ended."""
        self._files.delete(self._notes / f"{service}.json")


def read_notes(state_dir: Path) -> dict[str, ProcessNote]:
    """Return the notes of a state directory, by service; one that cannot be read is deleted."""
    found = {}
    for path in sorted((state_dir / NOTES).glob("*.json")):
        try:
            note = ProcessNote(**json.loads(private_files.read(path)))
            note.program()
            found[path.stem] = note
        except (OSError, ValueError, TypeError, RecursionError) as error:
            log.warning("deleting an unreadable note of a process", path=str(path), error=str(error))
            with suppress(OSError):
                path.unlink()
    return found
