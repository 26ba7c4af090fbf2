"""Text that controls a terminal, from a false control socket and in log lines."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import sys
import unicodedata
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.spec import Spec
from reconciler.core.text import printable, printable_json
from reconciler.engine.view import summary
from tests.fakes.simulation.clients import NAME
from tests.fakes.simulation.world import World

PROGRAM = Path(sys.executable).parent / "zenvoy"
ATTACK = "\x1b]0;title\x07\x1b[2J\x9b31m\x7f\u202egnp.exe\u200b\u2028[red]x[/red]:boom:\r\nfake: line"
TIME = re.compile(r"\d{4}-\d{2}-\d{2}T.*")
OBEYED = ("Cc", "Cf", "Cs", "Zl", "Zp")


def poisoned(value: Any) -> Any:
    """Return the answer with the attack at the end of each text but times."""
    match value:
        case dict():
            return {key: poisoned(one) for key, one in value.items()}
        case list():
            return [poisoned(one) for one in value]
        case str() if not TIME.fullmatch(value):
            return value + ATTACK
    return value


def service() -> dict[str, Any]:
    found = summary(World(Spec(name=NAME)).service)
    return {**found, "stalled": "why", "diagnosis": "why not", "endpoints": ["10.0.0.1:80"], "reference": "id"}


def explained() -> dict[str, Any]:
    at = "2026-11-23T10:00:00+00:00"
    counters = {"requests": 1, "active_requests": 0, "connections": 1, "active_connections": 0, "bytes": 5}
    each = [{"id": "envoy", "acked": "v1", "ackedAt": at}, {"id": "other", "acked": None, "ackedAt": None}]
    seen = [{"id": "envoy", "uptimeSeconds": 3.0, "used": True, "counters": counters}, {"id": "b", "missing": "why"}]
    held = dict.fromkeys(("held", "relayed", "released", "refused", "gone"), 0)
    return {
        "service": service(),
        "judged": {"usage": "quiet", "reason": "nothing moved"},
        "drainBlocker": "why",
        "drainBlockerReason": "why",
        "sample": {"source": "Envoy", "takenAt": at, "ageSeconds": 1.0, "unknown": "why", "envoys": seen},
        "envoys": {"version": "v1", "each": each},
        "holders": [{"id": "holder", "mode": "anyip", "connected": True, "inForce": True, **held}],
        "standing": {"replica": "a", "leads": True, "leader": "a", "connected": ["b"], "unknown": "why"},
        "transitions": [{"at": at, "from": "Idle", "to": "Active", "event": "Traffic", "reason": "it moved"}],
    }


def overview() -> dict[str, Any]:
    nack = {"at": "2026-11-23T10:00:00+00:00", "message": "why"}
    envoy = {"id": "envoy", "since": nack["at"], "mode": "delta", "versions": {}, "nacks": 1, "lastNack": nack}
    sample = {"source": "Envoy", "takenAt": nack["at"], "ageSeconds": 99.0, "unknown": "why"}
    holder = {"id": "holder", "mode": "anyip", "connected": True, "rules": None}
    return {"ready": True, "services": 1, "sample": sample, "envoys": [envoy], "holders": [holder], "standing": None}


@pytest.fixture
async def state_dir(tmp_path: Path) -> AsyncIterator[Path]:
    """Provide a state directory in whose control socket something else answers."""
    answers = {
        "/v1/services": {"services": [service()], "envoys": overview()["envoys"], "holders": []},
        f"/v1/services/{NAME}": service(),
        f"/v1/services/{NAME}/explain": explained(),
        "/v1/overview": overview(),
    }

    async def answer(request: web.Request) -> web.Response:
        if request.method == "POST":
            return web.json_response(poisoned(service()))
        found = answers.get(request.path)
        return web.json_response(poisoned(found or {"error": "no such"}), status=200 if found else 404)

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    directory = tmp_path / "state"
    directory.mkdir(mode=0o700)
    await web.UnixSite(runner, str(directory / "control.sock")).start()
    yield directory
    await runner.cleanup()


async def run(*command: str | Path, out: int = asyncio.subprocess.PIPE) -> str:
    """Return all that the command writes."""
    environment = {**os.environ, "TERM": "xterm-256color", "PYTHONUTF8": "1"}
    process = await asyncio.create_subprocess_exec(
        PROGRAM, *command, stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=out, env=environment
    )
    async with asyncio.timeout(60):
        written, errors = await process.communicate()
    return ((written or b"") + (errors or b"")).decode("utf-8", "surrogateescape")


def assert_harmless(text: str) -> None:
    odd = {character for character in text if character != "\n" and unicodedata.category(character) in OBEYED}
    assert not odd, (odd, text)
    assert not any(line.startswith("fake") for line in text.splitlines())
    assert "\N{COLLISION SYMBOL}" not in text, "a code of an emoji was interpreted"


@pytest.mark.parametrize(
    "command",
    [
        ("status",),
        ("status", NAME),
        ("explain", NAME),
        ("wake", NAME),
        ("sleep", NAME, "--no-wait"),
        ("pause", NAME),
        ("resume", NAME),
        ("doctor",),
        ("explain", "missing"),
        ("status", "-o", "yaml"),
        ("status", "-o", "json"),
        ("explain", NAME, "-o", "json"),
    ],
    ids=" ".join,
)
async def test_command_never_writes_what_a_terminal_obeys(state_dir: Path, command: tuple[str, ...]) -> None:
    text = await run(*command, "--state-dir", state_dir)
    assert "Traceback" not in text
    assert "title" in text or command[0] in ("pause", "resume"), "what came from elsewhere is shown"
    assert_harmless(text)


@pytest.mark.parametrize(("output", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
async def test_command_writes_data_exactly(state_dir: Path, output: str, read: Any) -> None:
    found = read(await run("status", NAME, "-o", output, "--state-dir", state_dir))
    assert found == poisoned(service())


async def test_table_in_a_terminal_has_only_colours_of_its_own(state_dir: Path) -> None:
    ours, theirs = pty.openpty()
    await run("status", "--state-dir", state_dir, out=theirs)
    os.close(theirs)
    written = b""
    with suppress(OSError):  # EIO: the other end is closed, and everything is read
        while data := os.read(ours, 1 << 20):
            written += data
    os.close(ours)
    text = written.decode("utf-8", "surrogateescape")
    assert "\x1b[" in text, "it is coloured"
    assert_harmless(re.sub(r"\x1b\[[0-9;]*m", "", text).replace("\r\n", "\n"))


async def test_problems_of_a_services_file_are_harmless(tmp_path: Path) -> None:
    file = tmp_path / "services.yaml"
    file.write_text(json.dumps({"listen": {"http": ATTACK}, "services": {ATTACK: {"protocol": ATTACK}}}))
    assert_harmless(await run("check", file))


@given(st.text(st.characters()))
def test_printable_text_is_harmless_and_stays_as_it_is(text: str) -> None:
    shown = printable(text)
    assert not any(unicodedata.category(character) in (*OBEYED, "Co", "Cn") for character in shown)
    assert printable(shown) == shown


@given(st.recursive(st.text(st.characters(exclude_categories=["Cs"])), st.lists))
def test_printable_json_means_the_same(value: Any) -> None:
    shown = printable_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(shown) == value
    assert not any(unicodedata.category(character) in OBEYED for character in shown)


@pytest.mark.parametrize("style", ["plain", "json"])
async def test_log_line_never_controls_a_terminal(style: str) -> None:
    code = (
        "import sys, structlog\n"
        "from reconciler.app.logging import configure\n"
        f"attack = {ATTACK!r}\n"
        f"configure({style!r})\n"
        "log = structlog.get_logger()\n"
        "log.warning(attack, why=attack, many=[attack], **{attack: 1})\n"
        "log.info('transition', service=attack, source='Idle', target='Active', reason=attack, cause=attack)\n"
        "try:\n    raise ValueError(attack)\nexcept ValueError:\n    log.exception('failed')\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    text = out.decode()
    assert text.count("title") >= 4
    assert_harmless(text)
    if style == "json":
        assert json.loads(text.splitlines()[0])["why"] == ATTACK


@pytest.mark.parametrize("style", ["plain", "json"])
async def test_log_line_of_a_holder_never_controls_a_terminal(style: str) -> None:
    code = (
        "import structlog\n"
        "from tproxy.process import configure_log\n"
        f"attack = {ATTACK!r}\n"
        f"configure_log({style!r})\n"
        "structlog.get_logger().warning('refused', why=attack, many=[attack])\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    assert "title" in out.decode()
    assert_harmless(out.decode())


def test_no_command_writes_past_the_cleaning() -> None:
    folder = Path(__file__).parents[2] / "reconciler" / "cli"
    past = re.compile(r"typer\.(echo|secho)|click\.echo|(?<![.\w])print\(|sys\.std(out|err)\.write")
    assert [file.name for file in folder.glob("*.py") if past.search(file.read_text())] == ["output.py"]
