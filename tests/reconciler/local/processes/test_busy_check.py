"""Tests of busy checks against real programs and commands."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.core.reasons import Reason
from reconciler.local.processes import probes
from reconciler.local.processes.program import Program
from tests.reconciler.local.processes.conftest import Stage
from tests.reconciler.local.processes.scene import GENEROUS_SECONDS, program, python, server

STATUSES = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(self.path.strip("/")))
        self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
FAILED = Reason.BUSY_CHECK_FAILED


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "CHECK_SECONDS", GENEROUS_SECONDS)


async def answer(stage: Stage, asked: Program) -> tuple[Reason | None, str]:
    scene = stage(asked)
    await scene.up()
    blocker = await scene.backend.ask_busy("s")
    return (blocker.code, blocker.message) if blocker else (None, "")


@pytest.mark.parametrize(
    ("path", "code", "message"),
    [
        ("/200", Reason.BUSY, "GET /200 is answered with 200"),
        ("/204", None, ""),
        ("/404", FAILED, "GET /404 is answered with 404; answer 200 while busy and 204 while idle"),
    ],
)
async def test_program_is_asked_over_http(stage: Stage, path: str, code: Reason | None, message: str) -> None:
    asked = replace(program(*python(STATUSES, "{port}")), busy_path=path)
    assert await answer(stage, asked) == (code, message)


async def test_program_without_http_has_failed_its_check(stage: Stage) -> None:
    code, message = await answer(stage, replace(server(), busy_path="/busy"))
    assert (code, message.startswith("GET /busy is not answered")) == (FAILED, True)


@pytest.mark.parametrize(
    ("script", "code", "message"),
    [
        ("exit 0", Reason.BUSY, "sh exits with 0"),
        ("exit 1", None, ""),
        ('test "$1" = "$PORT" && test "$ZENVOY_SERVICE" = s', Reason.BUSY, "sh exits with 0"),
        ("exit 3", FAILED, "sh exits with 3; exit with 0 while busy and with 1 while idle"),
        ("kill -9 $$", FAILED, "sh is killed; exit with 0 while busy and with 1 while idle"),
    ],
)
async def test_command_is_asked(stage: Stage, script: str, code: Reason | None, message: str) -> None:
    asked = replace(server(), busy_command=("sh", "-c", script, "sh", "{port}"))
    assert await answer(stage, asked) == (code, message)


async def test_command_that_is_missing_has_failed(stage: Stage) -> None:
    code, message = await answer(stage, replace(server(), busy_command=("/no-such-check",)))
    assert (code, message.startswith("/no-such-check cannot be run")) == (FAILED, True)


async def test_program_that_does_not_run_has_no_answer(stage: Stage) -> None:
    scene = stage(replace(server(), busy_path="/busy"))
    blocker = await scene.backend.ask_busy("s")
    assert blocker and blocker.code is FAILED
