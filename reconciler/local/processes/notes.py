"""What all services of one state directory share: the directory itself, its lock, its notes, and the ports in use.

The notes say which processes a zenvoy started, one small file per service, so that the next zenvoy can adopt or end
them after this one was killed. Rule: a note is replaced in one step, is only ever read at the start, and counts only if
the process that it names carries the service's mark. Counterpart: `procfs.py`, which finds what was not noted.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from signal import SIGTERM, Signals

import structlog

from reconciler.local import private_files
from reconciler.local.processes.mark import mark, read_mark
from reconciler.local.processes.procfs import Seen, boot_id, look, run_id
from reconciler.local.processes.program import Program

log = structlog.get_logger(__name__)


NOTES = "processes"


class StateDirInUse(Exception):
    """Another zenvoy runs services from this state directory."""


@dataclass(frozen=True, slots=True)
class Note:
    """One process that was started for a service."""

    boot: str
    pid: int
    started_ticks: int
    port: int
    digest: str
    """Of the program, see `Program.digest`."""
    reachable: bool = False
    milestones: Mapping[str, float] = field(default_factory=dict)
    claims: Sequence[str] = ()
    """Of the program, see `succession.claims`."""
    stop_signal: int = SIGTERM
    drain_timeout: float = 30.0

    def program(self) -> Program:
        """Return a program that only serves to end the process: its service is gone."""
        signal, patience = Signals(self.stop_signal), self.drain_timeout
        return Program(command=(), working_directory=Path("/"), stop_signal=signal, drain_timeout=patience)


class Site:
    """A state directory, held by this process alone. Raises `StateDirInUse`, and `NotPrivate` for one of others."""

    def __init__(self, state_dir: Path) -> None:
        self.logs = state_dir / "logs"
        self._notes = state_dir / NOTES
        for folder in (state_dir, self.logs, self._notes):
            private_files.make_directory(folder)
        try:
            self._lock = private_files.lock(state_dir / "processes.lock")
        except private_files.InUse as error:
            raise StateDirInUse(f"{state_dir} is in use by another zenvoy (pid {error})") from None
        self.run = run_id(state_dir)
        self.boot = boot_id()
        self._ports: dict[str, int] = {}
        """The last port of each service."""
        self._taken: set[int] = set()
        """The ports of those that run."""
        self._reserved: frozenset[int] = frozenset()

    def close(self) -> None:
        """Let another zenvoy have the state directory."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def mark(self, service: str) -> int:
        """Return the mark of the service's processes."""
        return mark(self.run, service)

    def notes(self) -> dict[str, Note]:
        """Return all notes, by service."""
        return read_notes(self._notes.parent)

    def process(self, service: str, note: Note) -> Seen | None:
        """Return the noted process if it still runs, and is one of the service."""
        seen = look(note.pid) if note.boot == self.boot else None
        if seen is None or seen.ended or seen.started_ticks != note.started_ticks:
            return None
        return seen if read_mark(seen.pid) == self.mark(service) else None

    def has_note(self, service: str) -> bool:
        """Whether something that was started for the service was not seen to end."""
        return (self._notes / f"{service}.json").exists()

    def write(self, service: str, note: Note) -> None:
        """Keep this note; it survives the process from now on. Raises OSError."""
        private_files.write(self._notes / f"{service}.json", json.dumps(asdict(note)).encode())

    def drop(self, service: str) -> None:
        """Nothing of the service runs any more."""
        (self._notes / f"{service}.json").unlink(missing_ok=True)

    def reserve(self, ports: Iterable[int]) -> None:
        """Some services must have these ports; nobody else gets them."""
        self._reserved = frozenset(ports)

    def free_port(self, service: str) -> int:
        """A free port, the one that the service had before if possible. Raises OSError when there is none."""
        port = self._ports.get(service)
        if port is not None and port not in self._taken | self._reserved and is_free(port):
            return port
        while True:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = int(probe.getsockname()[1])
            if port not in self._taken | self._reserved:
                return port

    def keep_port(self, service: str, port: int) -> None:
        """The service has this port; nobody else gets it until `give_back`."""
        self._ports[service] = port
        self._taken.add(port)

    def give_back(self, port: int) -> None:
        """The service that had the port ended."""
        self._taken.discard(port)

    def forget(self, service: str) -> None:
        """The service is no more."""
        self._ports.pop(service, None)


def read_notes(state_dir: Path) -> dict[str, Note]:
    """Return the notes of a state directory, by service; one that cannot be read is deleted."""
    found = {}
    for path in sorted((state_dir / NOTES).glob("*.json")):
        try:
            note = Note(**json.loads(private_files.read(path)))
            note.program()
            found[path.stem] = note
        except (OSError, ValueError, TypeError, RecursionError) as error:
            log.warning("note of a process is unreadable", path=str(path), error=str(error))
            with suppress(OSError):
                path.unlink()
    return found


def is_free(port: int, *, reusing: bool = False) -> bool:
    """Whether a program can listen on the port; `reusing` as if it set SO_REUSEADDR: old connections do not count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reusing)
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError:
            return True
        except OSError:
            return False
    return True
