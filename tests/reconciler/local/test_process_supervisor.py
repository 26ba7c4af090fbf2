"""The supervisor of the child processes of `zenvoy up`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog

from reconciler.local.process_supervisor import ChildProcess, ProcessSupervisor
from reconciler.local.processes.mark import RLIMIT_LOCKS, mark
from reconciler.local.processes.procfs import run_id, take_census
from reconciler.local.state_dir import StateDir

PATIENCE_SECONDS = 60.0
STAYS = "open('here', 'w').close(); import time; time.sleep(1000)"


async def eventually(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not holds():
            await asyncio.sleep(0.01)


def supervisor(folder: Path) -> ProcessSupervisor:
    state_dir = StateDir(folder)
    state_dir.make()
    return ProcessSupervisor(state_dir)


def child(code: str, program: str = sys.executable) -> ChildProcess:
    return ChildProcess("envoy", [program, "-S", "-E", "-c", code])


async def test_child_start_failure_is_retried(tmp_path: Path) -> None:
    """As while its package is being replaced."""
    program = tmp_path / "program"
    children = supervisor(tmp_path)
    with structlog.testing.capture_logs() as lines:
        children.start(child(STAYS, str(program)))
        await eventually(lambda: len(lines) >= 2)
        program.symlink_to(sys.executable)
        await eventually((tmp_path / "here").exists)
    assert all("No such file" in line["how"] for line in lines)
    await children.close()


async def test_supervisor_killed_leaves_no_child(tmp_path: Path) -> None:
    killed = supervisor(tmp_path)
    service = [sys.executable, "-S", "-E", "-c", STAYS.replace("here", "service")]
    number = mark(run_id(tmp_path), "web")
    limit = f"import resource; resource.setrlimit({RLIMIT_LOCKS}, ({number}, -1)); "
    start = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {limit!r} + {service[-1]!r}]); "
    with structlog.testing.capture_logs() as lines:
        killed.start(child(start + STAYS))
        await eventually(lambda: (tmp_path / "here").exists() and (tmp_path / "service").exists())
        await supervisor(tmp_path).end_leftovers()
        await eventually(lambda: any(line.get("how") == "killed by SIGKILL" for line in lines))
        await killed.close()
    [adopted] = take_census(run_id(tmp_path)).by_mark[number]
    os.kill(adopted.pid, signal.SIGKILL)
    ended = [line for line in lines if line["event"] == "ending a process of an earlier run"]
    assert [line["name"] for line in ended] == ["envoy"], "a service is not ended: it is adopted"


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("raise SystemExit(3)", "exit code 3"),
        ("import os; os.kill(os.getpid(), 9)", "killed by SIGKILL"),
        ("import os; os.kill(os.getpid(), 40)", "killed by signal 40"),
    ],
)
async def test_child_end_is_logged_and_restarted(tmp_path: Path, code: str, how: str) -> None:
    children = supervisor(tmp_path)
    with structlog.testing.capture_logs() as lines:
        children.start(child(code))
        await eventually(lambda: len(lines) >= 2)
        await children.close()
    assert {line["how"] for line in lines} == {how}
