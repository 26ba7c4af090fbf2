"""Programs that crash, do not start, or are not ready: reports and retries."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import time
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from reconciler.core.reasons import Diagnosis, Reason
from reconciler.local.processes.launch import Launcher
from reconciler.local.processes.probes import Prober, Unreadiness
from reconciler.local.state_dir import StateDir
from reconciler.ports.backend import WorkloadStatus
from tests.ports import free_port
from tests.reconciler.local.processes.conftest import Stage
from tests.reconciler.local.processes.scene import (
    CHILDREN,
    DAEMON,
    DOWN,
    UP,
    children,
    eventually,
    is_running,
    pid_of,
    program,
    python,
    server,
    shell,
)

HEALTH = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        print("asked for", self.path, flush=True)
        self.send_response(200 if os.path.exists("healthy") else 503)
        self.end_headers()
    def log_message(self, *_): pass
print("serving", flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def started(running: WorkloadStatus) -> float:
    return running.milestones.get("started", 0.0)


def has_trouble(running: WorkloadStatus) -> object:
    return running.diagnosis


def is_reachable(running: WorkloadStatus) -> object:
    return running.endpoints


async def test_note_that_cannot_be_changed_is_written_later(stage: Stage) -> None:
    scene = stage(server())
    note = scene.state_dir / "processes" / "s.json"
    note.mkdir()
    pid = await pid_of(await scene.up())
    note.rmdir()
    await eventually(note.is_file)
    assert json.loads(note.read_bytes())["pid"] == pid


async def test_crash_is_reported_and_restarted(stage: Stage) -> None:
    scene = stage(server())
    pid = await pid_of(await scene.up())
    os.kill(pid, signal.SIGKILL)
    lost = await scene.until(has_trouble)
    assert (lost.replicas, lost.endpoints) == (1, ())
    assert lost.diagnosis is not None
    assert lost.diagnosis.code is Reason.KILLED
    assert lost.diagnosis.message.startswith("killed by SIGKILL after ")
    back = await scene.until(is_reachable)
    assert back.diagnosis is None
    assert await pid_of(back) != pid
    assert all(report.replicas == 1 for report in list(scene.all())[1:])


async def test_crash_at_once_quotes_last_output(stage: Stage) -> None:
    scene = stage(shell("for line in 1 2 3 4 5 6 7; do echo line $line; done; echo 'no such table' >&2; exit 3"))
    scene.converge(UP)
    trouble = (await scene.until(has_trouble)).diagnosis
    assert trouble is not None
    how, _, lines = trouble.message.partition(" s: ")
    assert re.fullmatch(r"exited with code 3 after \d+\.\d", how)
    assert lines == "line 4 | line 5 | line 6 | line 7 | no such table"


async def test_crash_output_quoted_is_short_and_printable(stage: Stage) -> None:
    scene = stage(
        program(*python("print('\\x1b[31m' + 'x' * 10_000, '\\x07the end', '{port}'[:0]); raise SystemExit(1)"))
    )
    scene.converge(UP)
    trouble = (await scene.until(has_trouble)).diagnosis
    assert trouble is not None
    assert len(trouble.message) < 600
    assert trouble.message.endswith("x the end")


async def test_crash_output_of_earlier_run_is_not_quoted(stage: Stage, tmp_path: Path) -> None:
    scene = stage(shell(f"test -e {tmp_path}/again && exit 1; touch {tmp_path}/again; echo first; exit 2"))
    scene.converge(UP)
    reported = (await scene.until(has_trouble)).diagnosis
    assert reported is not None
    assert reported.message.endswith(" s: first")
    reported = (await scene.until(lambda running: running.diagnosis != reported)).diagnosis
    assert reported is not None
    assert reported.message.startswith("exited with code 1 after ")
    assert "first" not in reported.message


async def test_crash_repeated_pauses_grow(stage: Stage) -> None:
    scene = stage(shell("exit 1"))
    scene.converge(UP)
    starts: list[float] = [0.0]
    while len(starts) < 6:
        running = await scene.until(lambda running: started(running) > starts[-1])
        starts.append(started(running))
    pauses = [later - earlier for earlier, later in pairwise(starts[1:])]
    assert pauses[0] >= 0.08
    assert pauses[3] >= 0.64, "the longest first pause is 0.12 s"


async def test_start_failure_reports_reason(stage: Stage, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("text")
    scene = stage(
        missing=program("/no/such/program"),
        document=program(str(notes)),
        nowhere=replace(program("sh"), working_directory=tmp_path / "none"),
    )
    for service, why in {
        "missing": "cannot be started: No such file or directory: /no/such/program",
        "document": f"cannot be started: Permission denied: {notes}",
        "nowhere": f"cannot be started: No such file or directory: {tmp_path}/none",
    }.items():
        scene.converge(UP, service)
        running = await scene.until(has_trouble, service)
        assert (running.diagnosis, running.replicas) == (Diagnosis(Reason.NOT_STARTED, why), 1)
        await scene.down(service)
        assert scene.now(service).diagnosis is None


async def test_stop_during_pause_after_crash_works(stage: Stage) -> None:
    scene = stage(shell("exit 1"))
    scene.converge(UP)
    await scene.until(has_trouble)
    await scene.down()
    assert scene.now() == WorkloadStatus("s", 0)


async def test_crash_leftover_children_end_before_restart(stage: Stage) -> None:
    scene = stage(server(CHILDREN))
    up = await scene.up()
    await eventually(lambda: scene.log().count("child") == 4)
    orphans = children(scene.log())
    os.kill(await pid_of(up), signal.SIGKILL)
    await scene.until(lambda running: started(running) > started(up))
    assert not any(map(is_running, orphans))


async def test_daemonized_program_is_reported(stage: Stage) -> None:
    scene = stage(program(*python(DAEMON, "{port}")))
    scene.converge(UP)
    trouble = (await scene.until(has_trouble)).diagnosis
    assert trouble is not None
    assert trouble.message.startswith("exited with code 0 (it must stay in the foreground) after ")
    await eventually(lambda: not any(map(is_running, children(scene.log()))))
    await scene.down()
    assert len(children(scene.log())) == 1
    assert not any(map(is_running, children(scene.log())))


async def test_fixed_port_in_use_is_reported_until_free(stage: Stage) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        scene = stage(replace(server(), port=port))
        scene.converge(UP)
        reported = await scene.until(has_trouble)
        assert reported.diagnosis is not None and reported.diagnosis.code is Reason.NOT_STARTED
        assert f"port {port} is in use by process {os.getpid()}: " in reported.diagnosis.message
        assert not reported.endpoints
    assert (await scene.until(is_reachable)).endpoints == (f"127.0.0.1:{port}",)


async def test_allocated_port_in_use_is_replaced(stage: Stage) -> None:
    scene = stage(server())
    first = await scene.up()
    await scene.down()
    port = int(first.endpoints[0].rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)):
        second = await scene.up()
        assert second.endpoints != first.endpoints
        assert await pid_of(second)


async def test_readiness_waits_for_http_probe(stage: Stage, tmp_path: Path) -> None:
    health = program(*python(HEALTH, "{port}"))
    scene = stage(replace(health, working_directory=tmp_path, ready_path="/healthz"))
    scene.converge(UP)
    await eventually(lambda: "asked for /healthz" in scene.log())
    assert not scene.now().endpoints
    (tmp_path / "healthy").touch()
    assert (await scene.until(is_reachable)).diagnosis is None


async def test_readiness_waits_for_command_probe(stage: Stage, tmp_path: Path) -> None:
    ask = ("sh", "-c", 'test -e healthy && test "$PORT" = {port}')
    scene = stage(replace(server(), working_directory=tmp_path, ready_command=ask))
    scene.converge(UP)
    await eventually(lambda: "listening" in scene.log())
    assert not scene.now().endpoints
    (tmp_path / "healthy").touch()
    assert (await scene.until(is_reachable)).diagnosis is None


@pytest.mark.parametrize(("script", "message"), [("exit 5", "sh exits with 5"), ("kill -9 $$", "sh is killed")])
async def test_readiness_command_that_fails_is_reported(script: str, message: str, tmp_path: Path) -> None:
    asked = replace(server(), working_directory=tmp_path, ready_command=("sh", "-c", script))
    last = Unreadiness()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        waiting = asyncio.create_task(Prober(Launcher(str(tmp_path), 0o022)).until_ready("s", port, asked, last))
        await eventually(lambda: last.message == message)
        waiting.cancel()


async def test_log_file_long_is_rotated(stage: Stage) -> None:
    scene = stage(shell("echo out; echo err >&2; exec sleep 1000"))
    log = StateDir(scene.state_dir).log("s")

    def is_log(expected: str) -> bool:
        return scene.log() == expected

    for expected in ("out\nerr\n", "out\nerr\nout\nerr\n"):
        scene.converge(UP)
        await eventually(partial(is_log, expected))
        await scene.down()
    os.truncate(log, 11 * 1024 * 1024)
    scene.converge(UP)
    await eventually(lambda: scene.log() == "out\nerr\n")
    assert log.with_suffix(".log.1").stat().st_size == 11 * 1024 * 1024


async def test_configure_ten_thousand_sleeping_starts_nothing(stage: Stage) -> None:
    scene = stage(**{f"s{number}": server() for number in range(10_000)})
    for number in range(10_000):
        scene.converge(DOWN, f"s{number}")
    assert len(scene.reports) == 10_000
    assert asyncio.all_tasks() == {asyncio.current_task()}
    before = time.process_time()
    pid = await pid_of(await scene.up("s7"))
    assert is_running(pid)
    assert time.process_time() - before < 0.5
    assert len(asyncio.all_tasks()) < 10
