"""Adoption of processes after a zenvoy was killed, and changes of running services."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.local.processes.backend import ProcessBackend
from reconciler.local.processes.notes import StateDirInUse
from reconciler.local.processes.program import Program
from tests.reconciler.local.processes.conftest import Stage
from tests.reconciler.local.processes.scene import (
    CHILDREN,
    DAEMON,
    STUBBORN,
    UP,
    children,
    eventually,
    is_running,
    pid_of,
    server,
)

PREDECESSOR = """
import asyncio, os, pickle, sys
from pathlib import Path
from reconciler.local.processes.backend import ProcessBackend
from reconciler.plan import AtLeast

async def run():
    awake = set(sys.argv[2].split(","))
    def report(running):
        if running.service in awake and running.endpoints:
            awake.discard(running.service)
            if not awake:
                print("up", flush=True)
    backend = ProcessBackend(Path(sys.argv[1]), report)
    backend.configure(pickle.loads(sys.stdin.buffer.read()))
    for service in sys.argv[2].split(","):
        backend.converge(service, AtLeast(1))
    await asyncio.Event().wait()

asyncio.run(run())
"""

Leave = Callable[..., None]


@pytest.fixture
def leave(tmp_path: Path) -> Leave:
    """Let a zenvoy start these services, and kill it: `leave(s=program)`."""

    def start(**programs: Program) -> None:
        command = [sys.executable, "-c", PREDECESSOR, str(tmp_path / "state"), ",".join(programs)]
        root = Path(__file__).parents[4]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root) as zenvoy:
            assert zenvoy.stdin and zenvoy.stdout
            zenvoy.stdin.write(pickle.dumps(programs))
            zenvoy.stdin.close()
            assert zenvoy.stdout.readline() == b"up\n"
            zenvoy.kill()

    return start


def noted(tmp_path: Path, service: str = "s") -> int:
    """Return the pid in the note of a service."""
    return int(json.loads((tmp_path / "state" / "processes" / f"{service}.json").read_text())["pid"])


async def test_backend_restart_adopts_running_process(stage: Stage, leave: Leave, tmp_path: Path) -> None:
    leave(s=server())
    pid = noted(tmp_path)
    scene = stage(server())
    first = scene.reports[0]
    assert (first.replicas, list(first.milestones)) == (1, ["started", "reachable"])
    assert await pid_of(first) == pid
    scene.converge(UP)
    await scene.down()
    assert not is_running(pid)


async def test_adopted_process_crash_is_restarted(stage: Stage, leave: Leave, tmp_path: Path) -> None:
    leave(s=server())
    scene = stage(server())
    pid = noted(tmp_path)
    os.kill(pid, signal.SIGKILL)
    trouble = (await scene.until(lambda running: running.diagnosis)).diagnosis
    assert trouble is not None
    assert trouble.message.startswith("exited after ")
    assert await pid_of(await scene.until(lambda running: running.endpoints)) != pid


async def test_adopted_process_stop_ends_its_children(stage: Stage, leave: Leave, tmp_path: Path) -> None:
    program = server(CHILDREN + DAEMON, drain_timeout=0.3)
    leave(s=program)
    scene = stage(program)
    await eventually(lambda: scene.log().count("child") == 5)
    await scene.down()
    assert not any(map(is_running, children(scene.log())))


async def test_backend_restart_with_other_program_replaces_it(stage: Stage, leave: Leave, tmp_path: Path) -> None:
    leave(s=server())
    old = noted(tmp_path)
    scene = stage(server("# another\n"))
    assert (scene.reports[0].replicas, scene.reports[0].endpoints) == (1, ())
    new = await pid_of(await scene.until(lambda running: running.endpoints))
    assert new != old
    assert not is_running(old)
    assert all(report.replicas == 1 for report in scene.reports)


async def test_backend_restart_removed_service_ends(stage: Stage, leave: Leave, tmp_path: Path) -> None:
    leave(s=server(), t=server())
    gone = noted(tmp_path, "t")
    scene = stage(server())
    await eventually(lambda: not is_running(gone))
    assert {report.service for report in scene.reports} == {"s"}
    assert is_running(noted(tmp_path))


@pytest.mark.parametrize("lost", ["unlink", "spoil"])
async def test_backend_restart_process_without_note_ends(stage: Stage, leave: Leave, tmp_path: Path, lost: str) -> None:
    leave(s=server(), t=server())
    pids = [noted(tmp_path, service) for service in "st"]
    for service in "st":
        note = tmp_path / "state" / "processes" / f"{service}.json"
        note.write_text("{") if lost == "spoil" else note.unlink()
    scene = stage(server())
    assert scene.reports[0].replicas == 1
    await scene.until(lambda running: running.replicas == 0)
    await eventually(lambda: not any(map(is_running, pids)))


async def test_backend_restart_children_without_leader_end(stage: Stage, leave: Leave, tmp_path: Path) -> None:
    leave(s=server(CHILDREN, drain_timeout=0.3))
    log = tmp_path / "state" / "logs" / "s.log"
    await eventually(lambda: log.read_text().count("child") == 4)
    leader = noted(tmp_path)
    os.kill(leader, signal.SIGKILL)
    await eventually(lambda: not is_running(leader))
    scene = stage(server(CHILDREN, drain_timeout=0.3))
    await scene.until(lambda running: running.replicas == 0)
    assert not any(map(is_running, children(log.read_text())))


async def test_backend_restart_reused_pid_is_left_alone(stage: Stage, leave: Leave, tmp_path: Path) -> None:
    leave(s=server())
    note = tmp_path / "state" / "processes" / "s.json"
    ours = noted(tmp_path)
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as other:
        note.write_text(note.read_text().replace(f'"pid": {ours}', f'"pid": {other.pid}'))
        scene = stage(server())
        await scene.until(lambda running: running.replicas == 0)
        assert not is_running(ours)
        assert other.poll() is None
        other.kill()


async def test_state_directory_in_use_is_refused(stage: Stage, tmp_path: Path) -> None:
    stage(server())
    with pytest.raises(StateDirInUse, match=f"in use by another zenvoy \\(pid {os.getpid()}\\)"):
        ProcessBackend(tmp_path / "state", lambda _: None)


async def test_configure_touches_changed_services_only(stage: Stage) -> None:
    scene = stage(a=server(), b=server(), c=server())
    pids = {service: await pid_of(await scene.up(service)) for service in "abc"}
    said = len(scene.reports)
    changed = server("# another\n")
    scene.backend.configure({"a": server(), "b": changed, "d": server()})
    assert scene.backend.outdated() == {"b"}
    assert [(report.service, report.replicas) for report in scene.reports[said:]] == [("d", 0)]
    await eventually(lambda: not is_running(pids["c"]))
    assert [await pid_of(scene.now(service)) for service in "ab"] == [pids["a"], pids["b"]]
    scene.backend.restart("b")
    await scene.until(lambda running: not running.endpoints, "b")
    assert await pid_of(await scene.until(lambda running: running.endpoints, "b")) != pids["b"]
    assert scene.backend.outdated() == frozenset()
    assert not any(report.service == "c" for report in scene.reports[said:])


async def test_outdated_service_after_sleep_is_current(stage: Stage) -> None:
    scene = stage(server())
    await scene.up()
    scene.backend.configure({"s": server("print('another', flush=True)\n")})
    await scene.down()
    await scene.up()
    assert "another" in scene.log()
    assert not scene.backend.outdated()


async def test_configure_stop_settings_apply_while_running(stage: Stage) -> None:
    stubborn = server(STUBBORN, drain_timeout=1000)
    scene = stage(stubborn)
    await scene.up()
    scene.backend.configure({"s": replace(stubborn, drain_timeout=0.1)})
    assert not scene.backend.outdated()
    await scene.down()
