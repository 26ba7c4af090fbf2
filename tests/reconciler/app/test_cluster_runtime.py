"""`zenvoy controller` without an API server or a free port."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.harness import until
from tests.ports import free_port

ZENVOY = Path(sys.executable).parent / "zenvoy"
PATIENCE_SECONDS = 60.0
END_SECONDS = 60.0


@contextmanager
def controller(folder: Path, http: int) -> Iterator[subprocess.Popen[str]]:
    """Run `zenvoy controller` without an API server."""
    cluster = {"name": "none", "cluster": {"server": f"http://127.0.0.1:{free_port()}"}}
    context = {"name": "none", "context": {"cluster": "none", "user": "none"}}
    users = [{"name": "none", "user": {}}]
    said = {"clusters": [cluster], "contexts": [context], "users": users, "current-context": "none"}
    (folder / "kubeconfig").write_text(json.dumps({"apiVersion": "v1", "kind": "Config", **said}))
    command = [str(ZENVOY), "controller", "--pod-name", "me", "--pod-ip", "127.0.0.1"]
    command += ["--kubeconfig", str(folder / "kubeconfig"), "--metrics", f"127.0.0.1:{http}"]
    command += ["--grpc", f"127.0.0.1:{free_port()}", "--plaintext"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def lives(http: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{http}/healthz", timeout=60) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_controller_without_api_server_ends_on_sigterm(tmp_path: Path) -> None:
    http = free_port()
    with controller(tmp_path, http) as process:
        until("it has started", lambda: lives(http), PATIENCE_SECONDS)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=END_SECONDS)
        assert process.returncode == 0, said
        assert "Traceback" not in said


def test_controller_port_in_use_is_reported_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, controller(tmp_path, other.getsockname()[1]) as process:
        _, said = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 1
        assert "Traceback" not in said
        assert "address already in use" in said.splitlines()[-1]
