"""Processes that a benchmark starts, ended whatever happens, and what the kernel says of them."""

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
    """Progress, for people."""
    print(text, file=sys.stderr, flush=True)


def free_port() -> int:
    """A port that nobody listens on, on any address."""
    with socket.create_server(("0.0.0.0", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_for(condition: Callable[[], T], what: str, seconds: float = 60.0) -> T:
    """Until it is true: what it was. Raises `TimeoutError`."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s in vain for {what}")
        time.sleep(0.005)
    return found


def go_ahead() -> str:
    """Let this process, and all that it starts, run ahead of everything else; how it went, for people."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        return "no right to run ahead of other work on this machine: it shows in the p99"
    return "ahead of all other work on this machine"


@contextlib.contextmanager
def running(
    command: Sequence[str], *, cwd: Path = ROOT, output: IO[bytes] | int | None = None, **more: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own, which ends with this block: by SIGTERM, or by SIGKILL with its group."""
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
    """Memory that is the process's own: resident and not backed by a file (proc(5), RssAnon)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"process {pid} has no RssAnon")


def cpu_seconds(pid: int) -> float:
    """CPU time of the threads that the process has now, to the nanosecond (proc(5), schedstat)."""
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9


def descriptors(pid: int) -> int:
    """How many descriptors it has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))
