"""Processes of a benchmark, which are always stopped, and their resource usage."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

ROOT = Path(__file__).resolve().parent.parent
ZENVOY = Path(sys.executable).with_name("zenvoy")
STOP_SECONDS = 8.0

T = TypeVar("T")


def say(text: str) -> None:
    """Print progress to standard error."""
    print(text, file=sys.stderr, flush=True)


def free_port() -> int:
    """Return a port that is free on every address."""
    with socket.create_server(("0.0.0.0", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_for(condition: Callable[[], T], what: str, seconds: float = 60.0) -> T:
    """Wait until a condition returns a true value, and return it. Raises `TimeoutError`."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s in vain for {what}")
        time.sleep(0.005)
    return found


def go_ahead() -> str:
    """Give this process and its children real-time priority; return a description of the result."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        return "no right to run ahead of other work on this machine: it shows in the p99"
    return "ahead of all other work on this machine"


@contextlib.contextmanager
def running(
    command: Sequence[str], *, cwd: Path = ROOT, output: IO[bytes] | int | None = None, **more: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process in its own session, and stop it at the end of the block with SIGTERM, or its group with SIGKILL."""
    found_from = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    env = {**os.environ, "PYTHONPATH": found_from}
    process = subprocess.Popen(command, cwd=cwd, env=env, stdout=output, start_new_session=True, **more)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def resident_bytes(pid: int) -> int:
    """Return the anonymous resident memory of a process (proc(5), RssAnon)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"process {pid} has no RssAnon")


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of the current threads of a process, to the nanosecond (proc(5), schedstat)."""
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9


def descriptors(pid: int) -> int:
    """Return the number of open descriptors of a process."""
    return len(os.listdir(f"/proc/{pid}/fd"))
