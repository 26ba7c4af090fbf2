"""Programs that run as another user: a real `zenvoy up` as root. Without root, the only other user is its own."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import Start
from tests.e2e.harness import QUICK, SLOW_TO_SLEEP, quick, request, until

IS_ROOT = os.geteuid() == 0
USER = pwd.getpwnam("daemon") if IS_ROOT else pwd.getpwuid(os.geteuid())
IMPATIENT = {"holdTimeout": "2s"}
PYTHON = shutil.which("python3", path="/usr/local/bin:/usr/bin:/bin") or sys.executable
REPORT = """
import http.server, json, os, sys
def denied(path):
    try:
        os.listdir(path)
    except PermissionError:
        return True
    return False
def may_signal(pid):
    try:
        os.kill(pid, 0)
    except PermissionError:
        return False
    return True
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        found = {"ids": [os.getresuid(), os.getresgid()], "groups": sorted(os.getgroups()), "cwd": os.getcwd(),
                 "environment": dict(os.environ), "denied": denied(sys.argv[2]), "signals": may_signal(os.getppid())}
        body = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
print("serving", flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Yield a folder that every user may enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made)


def test_program_runs_as_its_user(zenvoy: Start, tmp_path: Path, folder: Path) -> None:
    is_user = ["sh", "-c", f'test "$(id -u) $USER" = "{USER.pw_uid} {USER.pw_name}"']
    z = zenvoy(
        {
            "name": "web",
            "user": USER.pw_name,
            "command": [PYTHON, "-I", "-S", "-c", REPORT, "{port}", str(tmp_path / "z0" / "state")],
            "workingDirectory": str(folder),
            "ready": {"command": is_user},
            "busy": {"command": ["sh", "-c", f'test "$(id -u)" != {USER.pw_uid}']},
            "env": {"COLOR": "red"},
        },
        {"name": "own", "command": quick("http"), "idleAfter": "10m"},
        defaults=QUICK,
        environment={"TOKEN": "secret"},
    )
    z.asleep("web")
    found = json.loads(request(z.http_port, "web").body)
    assert found["ids"] == [[USER.pw_uid] * 3, [USER.pw_gid] * 3]
    assert found["groups"] == sorted(os.getgrouplist(USER.pw_name, USER.pw_gid)) or not IS_ROOT
    assert found["cwd"] == str(folder)
    variables = found["environment"]
    assert {variables[name] for name in ("USER", "LOGNAME")} == {USER.pw_name}
    assert (variables["HOME"], variables["COLOR"], variables["ZENVOY_SERVICE"]) == (USER.pw_dir, "red", "web")
    assert "TOKEN" not in variables
    assert (found["denied"], found["signals"]) == (IS_ROOT, not IS_ROOT)
    assert request(z.http_port, "own").status == 200
    assert {psutil.Process(pid).uids().real for pid in z.service_pids("own")} == {os.geteuid()}
    log = z.state_dir / "logs" / "web.log"
    assert (log.stat().st_uid, stat.S_IMODE(log.stat().st_mode)) == (os.geteuid(), 0o600)
    assert z.output("web") == "serving\n"
    z.wait_state("web", "ScaledToZero")
    until("no process of web is left", lambda: not z.service_pids("web"))
    assert json.loads(request(z.http_port, "web").body)["ids"] == found["ids"]
    assert z.stop() == 0
    assert not z.leftovers()


def test_user_without_access_affects_its_service_only(zenvoy: Start, tmp_path: Path, folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    (closed / "serve").touch(0o755)
    user = USER.pw_name
    z = zenvoy(
        {"name": "fine", "command": quick("http")},
        {"name": "nobody-there", "user": "no-such-user", "command": quick("http"), **IMPATIENT},
        {"name": "outside", "user": user, "command": ["sh", "{port}"], "workingDirectory": str(closed), **IMPATIENT},
        {
            "name": "no-access",
            "user": user,
            "command": [f"{closed}/serve", "{port}"],
            "workingDirectory": "/",
            **IMPATIENT,
        },
        defaults=SLOW_TO_SLEEP,
    )
    assert request(z.http_port, "fine").status == 200
    check = z.cli("check", str(z.file))
    assert check.returncode == 2
    assert "services[1].user: user 'no-such-user' does not exist" in check.stderr + check.stdout

    def explains(name: str, reason: str) -> bool:
        return reason in z.cli("explain", name).stdout

    for name, reason in (
        ("nobody-there", "user 'no-such-user' does not exist"),
        *((("outside", f"{user} cannot enter {closed}"), ("no-access", "Permission denied")) if IS_ROOT else ()),
    ):
        assert request(z.http_port, name).status == 503
        until(f"{name} has its reason", partial(explains, name, reason))
    assert z.stop() == 0
    assert not z.leftovers()
