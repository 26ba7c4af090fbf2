"""A backend with small real programs, and its reports."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from reconciler.local.processes.backend import ProcessBackend
from reconciler.local.processes.program import Program
from reconciler.local.state_dir import StateDir
from reconciler.plan import AtLeast, Scale, Zero
from reconciler.ports.backend import WorkloadStatus

UP, DOWN = AtLeast(1), Zero()
GENEROUS_SECONDS = 60.0

SERVER = """
import os, signal, socket, sys, time
port, delay = int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
time.sleep(delay)
server = socket.create_server(("127.0.0.1", port))
print("listening", flush=True)
while True:
    connection, _ = server.accept()
    with connection:
        connection.sendall(f"{os.getpid()} {os.environ['ZENVOY_SERVICE']} {os.environ['PORT']}".encode())
"""

STUBBORN = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
"""
CHILDREN = f"""
import os, time
for _ in range(2):
    if os.fork() == 0:
        os.fork()
        {STUBBORN.strip().replace(chr(10), "; ")}
        print("child", os.getpid(), flush=True)
        time.sleep(1000)
"""
DAEMON = """
import os, time
starting, started = os.pipe()
if os.fork() == 0:
    os.setsid()
    print("child", os.getpid(), flush=True)
    os.write(started, b"!")
    time.sleep(1000)
os.read(starting, 1)
"""
"""It exits once its child has written its pid: the child is killed as soon as the program has exited."""


def children(log: str) -> list[int]:
    """Return the pids that `CHILDREN` or `DAEMON` wrote."""
    return [int(line.split()[1]) for line in log.splitlines() if line.startswith("child")]


def python(code: str, *arguments: str) -> tuple[str, ...]:
    """Return a command that runs this code in a Python that starts fast."""
    return (sys.executable, "-S", "-E", "-c", code, *arguments)


def server(before: str = "", *, delay: float = 0.0, drain_timeout: float = 20.0) -> Program:
    """Return a server on its port; `before` is code that runs first."""
    return program(*python(before + SERVER, "{port}", str(delay)), drain_timeout=drain_timeout)


def shell(script: str, *, drain_timeout: float = 20.0) -> Program:
    """Return a shell script; `$PORT` is its port."""
    return program("sh", "-c", script, drain_timeout=drain_timeout)


def program(*command: str, drain_timeout: float = 20.0) -> Program:
    return Program(command=command, working_directory=Path("/"), drain_timeout=drain_timeout)


class Scene:
    """The backend, and everything that it reported."""

    def __init__(self, state_dir: Path, programs: dict[str, Program]) -> None:
        self.reports: list[WorkloadStatus] = []
        self.state_dir = state_dir
        self._news = asyncio.Event()
        self.backend = ProcessBackend(state_dir, self._on_report)
        self.backend.configure(programs)

    def _on_report(self, running: WorkloadStatus) -> None:
        self.reports.append(running)
        self._news.set()

    def now(self, service: str = "s") -> WorkloadStatus:
        """Return the latest report of the service."""
        return next(report for report in reversed(self.reports) if report.service == service)

    def all(self, service: str = "s") -> Iterator[WorkloadStatus]:
        return (report for report in self.reports if report.service == service)

    async def until(self, holds: Callable[[WorkloadStatus], object], service: str = "s") -> WorkloadStatus:
        """Return the first matching report, from the latest one on."""
        start = len(self.reports) - 1 - [report.service for report in reversed(self.reports)].index(service)
        async with asyncio.timeout(GENEROUS_SECONDS):
            while True:
                for report in self.reports[start:]:
                    if report.service == service and holds(report):
                        return report
                start = len(self.reports)
                self._news.clear()
                await self._news.wait()

    async def up(self, service: str = "s") -> WorkloadStatus:
        self.converge(UP, service)
        return await self.until(lambda running: running.endpoints, service)

    async def down(self, service: str = "s") -> WorkloadStatus:
        self.converge(DOWN, service)
        return await self.until(lambda running: running.replicas == 0, service)

    def converge(self, scale: Scale, service: str = "s") -> None:
        before = len(self.reports)
        changed = self.backend.converge(service, scale)
        assert len(self.reports) == before, "the backend calls back from within a call"
        if changed:
            self._on_report(changed)

    def log(self, service: str = "s") -> str:
        """Return the log file of the service, if there is one."""
        path = StateDir(self.state_dir).log(service)
        return path.read_text() if path.exists() else ""


async def reply(running: WorkloadStatus) -> list[str]:
    """Return the answer of the server: its pid, its service, its port."""
    host, _, port = running.endpoints[0].rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        return (await reader.read()).decode().split()
    finally:
        writer.close()
        await writer.wait_closed()


async def pid_of(running: WorkloadStatus) -> int:
    return int((await reply(running))[0])


def is_running(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


async def eventually(holds: Callable[[], object]) -> None:
    """Wait until the condition is true."""
    end = time.monotonic() + GENEROUS_SECONDS
    while not holds():
        assert time.monotonic() < end, "it never came true"
        await asyncio.sleep(0.005)
