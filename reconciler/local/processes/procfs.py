"""The processes of this machine, read from /proc: their groups, parents, and the services that they belong to.

A process that ends while it is read does not exist. A process belongs to a service if it carries the service's mark
(`mark.py`), is in the process group of its leader, or descends from such a process.
Source: proc_pid_stat(5), proc_pid_environ(5).
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reconciler.local.processes.mark import NOT_THERE, belongs_to, read_mark
from reconciler.local.state_dir import CHILD_MARK

_KTHREADD = 2


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """One process. Pids are reused; a pid with its start time is unique until the next boot."""

    pid: int
    parent: int
    group: int
    started_ticks: int
    ended: bool
    """True for a zombie."""

    def age_seconds(self) -> float:
        """Return the time since it was started, which does not depend on the wall clock."""
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - self.started_ticks / os.sysconf("SC_CLK_TCK"))


@dataclass(frozen=True, slots=True)
class Census:
    """The processes at one moment."""

    by_group: Mapping[int, Sequence[ProcessInfo]]
    by_parent: Mapping[int, Sequence[ProcessInfo]]
    by_mark: Mapping[int, Sequence[ProcessInfo]]
    """The processes with a mark of this state directory."""

    def family(self, mark: int, leader: ProcessInfo | None) -> frozenset[ProcessInfo]:
        """Return all processes of a service whose leader is or was `leader`."""
        found = {*self.by_mark.get(mark, ()), *self._group(leader)}
        unvisited = [seen.pid for seen in found]
        while unvisited:
            descendants = [seen for seen in self.by_parent.get(unvisited.pop(), ()) if seen not in found]
            found.update(descendants)
            unvisited += [seen.pid for seen in descendants]
        return frozenset(found)

    def _group(self, leader: ProcessInfo | None) -> Sequence[ProcessInfo]:
        if leader is None:
            return ()
        group = self.by_group.get(leader.pid, ())
        # The kernel does not reuse a pid while a group has it: another process with that pid means the group is gone.
        if any(seen.pid == leader.pid and seen.started_ticks != leader.started_ticks for seen in group):
            return ()
        return group


def process_info(pid: int) -> ProcessInfo | None:
    """Return the process, or None if there is none."""
    stat = _stat(pid)
    if not stat:
        return None
    ended = stat[0] in (b"Z", b"X") and int(stat[17]) < 2  # it has no other thread
    return ProcessInfo(pid, int(stat[1]), int(stat[2]), int(stat[19]), ended)


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used; 0 when there is no such process."""
    stat = _stat(pid)
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK") if stat else 0.0


def boot_id() -> str:
    """Return an id that changes with each boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def run_id(state_dir: Path) -> str:
    """Return an id of a state directory that does not depend on its path."""
    stat = state_dir.stat()
    return f"{stat.st_dev:x}-{stat.st_ino:x}"


def take_census(run: str) -> Census:
    """Read all processes, at about 15 µs each."""
    groups: dict[int, list[ProcessInfo]] = defaultdict(list)
    parents: dict[int, list[ProcessInfo]] = defaultdict(list)
    marks: dict[int, list[ProcessInfo]] = defaultdict(list)
    for seen in _all_processes():
        groups[seen.group].append(seen)
        parents[seen.parent].append(seen)
        if (number := read_mark(seen.pid)) is not None and belongs_to(number, run):
            marks[number].append(seen)
    return Census(groups, parents, marks)


def children_of(run: str) -> list[tuple[str, ProcessInfo]]:
    """Return the child processes of a `zenvoy up`, with their names; services are not included."""
    named = [(_child_name(seen.pid, run), seen) for seen in _all_processes()]
    return [(name, seen) for name, seen in named if name and not belongs_to(read_mark(seen.pid) or 0, run)]


def _all_processes() -> Iterator[ProcessInfo]:
    own = os.getpid()
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == own:
            continue
        seen = process_info(int(name))
        if seen and seen.parent != _KTHREADD and not seen.ended:
            yield seen


def _stat(pid: int) -> list[bytes] | None:
    """Return the fields of /proc/PID/stat after the second, which is in parentheses and can contain any text."""
    try:
        content = _read(f"/proc/{pid}/stat")
    except NOT_THERE:
        return None
    return content.rpartition(b")")[2].split()


def _child_name(pid: int, run: str) -> str | None:
    """Return the name in `CHILD_MARK`, if it belongs to this state directory."""
    try:
        environment = b"\0" + _read(f"/proc/{pid}/environ")
    except NOT_THERE:
        return None
    _, found, rest = environment.partition(f"\0{CHILD_MARK}={run}/".encode())
    return rest.partition(b"\0")[0].decode(errors="replace") if found else None


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = b""
        while chunk := os.read(descriptor, 1 << 16):
            content += chunk
        return content
    finally:
        os.close(descriptor)
