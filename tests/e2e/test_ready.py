"""Readiness of `zenvoy up`: `zenvoy wait`, `/readyz`, and the service manager report it once every listener answers."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import psutil

from tests.e2e.conftest import Start
from tests.e2e.harness import LOCAL, SLOW_TO_SLEEP, ZENVOY, quick, request


def test_up_is_ready_once_every_listener_answers(zenvoy: Start, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"{tmp_path}/notify.sock")
        manager.settimeout(120)
        z = zenvoy(
            {"name": "web", "command": quick("http")},
            {"name": "db", "protocol": "tcp", "command": quick("tcp")},
            defaults=SLOW_TO_SLEEP,
            environment={"NOTIFY_SOCKET": f"{tmp_path}/notify.sock"},
            start=False,
        )
        environment = {**os.environ, "ZENVOY_STATE_DIR": str(z.state_dir)}
        waiting = subprocess.Popen([str(ZENVOY), "wait", "--timeout", "120s"], env=environment)
        z.start(wait=False)
        assert waiting.wait(120) == 0
        for port in (z.http_port, z.port("db")):
            socket.create_connection((LOCAL, port), timeout=60).close()
        said = b""
        while b"READY=1" not in said:
            said = manager.recv(4096)
            assert b"\n" not in said.partition(b"STATUS=")[2], "a status is one line"
        up = psutil.Process(int((z.state_dir / "lock").read_text()))
        assert not any("NOTIFY_SOCKET" in child.environ() for child in up.children()), "only `up` may notify it"
        assert request(z.http_port, "web").status == 200
        assert z.cli("wait", "web", "--for", "ready").returncode == 0
        assert z.cli_sleep("web").returncode == 0
        assert z.cli("wait", "web", "--for", "scaledtozero").returncode == 0
        assert z.stop() == 0
        assert manager.recv(4096) == b"STOPPING=1"
    assert not z.leftovers()


def test_up_wait_returns_ready_or_with_the_reason(zenvoy: Start) -> None:
    z = zenvoy({"name": "web", "command": quick("http")}, defaults=SLOW_TO_SLEEP, start=False)
    command = [str(ZENVOY), "up", str(z.file), "--state-dir", str(z.state_dir), "--wait", "--timeout", "120s"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=z.directory, timeout=150)
    process = psutil.Process(int((z.state_dir / "lock").read_text()))
    try:
        assert (done.returncode, done.stderr) == (0, "")
        assert request(z.http_port, "web").status == 200
        again = subprocess.run(command, capture_output=True, text=True, cwd=z.directory, timeout=150)
        assert again.returncode == 1
        assert f"is used by process {process.pid}" in again.stderr
    finally:
        process.terminate()
        psutil.wait_procs([process], 60)
    assert not z.leftovers()
