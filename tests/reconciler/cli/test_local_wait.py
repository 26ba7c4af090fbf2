"""`zenvoy wait` and the waits of `wake` and `sleep`, with a control socket whose answers change."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import typer

from reconciler.cli.commands import local
from reconciler.cluster_client.context_options import ContextOptions
from reconciler.local.state_dir import StateDir
from reconciler.server.http.server import Http
from tests.fakes.operations import FakeOperations

ENOUGH, SHORT = 60.0, 0.2


class Changing(FakeOperations):
    """A service `web` and a readiness that change with each answer, until the last of them."""

    def __init__(self, states: Sequence[str] = ("Active",), unready: Sequence[str | None] = (None,)) -> None:
        super().__init__("web")
        self._states, self._unready = list(states), list(unready)

    def service(self, name: str) -> Mapping[str, Any]:
        super().service(name)
        state = self._states.pop(0) if len(self._states) > 1 else self._states[0]
        return {"name": name, "state": state, "stalled": None, "reason": "a reason"}

    def services(self) -> list[Mapping[str, Any]]:
        return [self.service("web")]

    def overview(self) -> Mapping[str, Any]:
        return {"unready": self._unready.pop(0) if len(self._unready) > 1 else self._unready[0]}

    def tell(self, name: str, command: Any) -> Mapping[str, Any]:
        return self.service(name)


async def serve(folder: Path, operations: Changing) -> Http:
    async def nothing(*_: object) -> Any:
        return b""

    http = Http(operations, nothing, nothing)
    await http.serve_control(StateDir(folder).control)
    return http


async def run(folder: Path, operations: Changing, command: Any, *arguments: Any) -> int:
    """Return the exit code of a command."""
    http = await serve(folder, operations)
    try:
        await asyncio.to_thread(command, ContextOptions(state_dir=folder), *arguments)
    except typer.Exit as left:
        return left.exit_code
    finally:
        await http.close()
    return 0


@pytest.mark.parametrize(
    ("states", "unready", "names", "goal", "timeout", "code", "expected"),
    [
        (["Active"], ["Envoy does not listen yet", None], [], "ready", ENOUGH, 0, "zenvoy is ready"),
        (["Active"], ["Envoy does not listen yet"], [], "ready", SHORT, 1, "not ready: Envoy does not listen yet"),
        (["Waking", "Waking", "Idle"], [None], ["web"], "ready", ENOUGH, 0, "web is awake and reachable"),
        (["Active"], ["the holder is away"], ["web"], "ready", SHORT, 1, "the holder is away"),
        (["Waking"], [None], ["web"], "ready", SHORT, 1, "web is Waking: a reason"),
        (["Draining", "ScaledToZero"], [None], ["web"], "ScaledToZero", ENOUGH, 0, "web is ScaledToZero"),
        (["Draining", "ScaledToZero"], ["x"], [], "ScaledToZero", ENOUGH, 0, "every service is ScaledToZero"),
        (["Active"], [None], ["wib"], "ready", ENOUGH, 4, "there is no service 'wib'"),
    ],
)
async def test_wait_ends_with_the_goal_or_the_reason(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    states: list[str],
    unready: list[str | None],
    names: list[str],
    goal: str,
    timeout: float,
    code: int,
    expected: str,
) -> None:
    assert await run(tmp_path, Changing(states, unready), local.wait, names, goal, timeout) == code
    said = capsys.readouterr()
    assert expected in (said.err if code else said.out)


def test_wait_without_zenvoy_exits_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as left:
        local.wait(ContextOptions(state_dir=tmp_path), [], "ready", SHORT)
    assert left.value.exit_code == 3
    assert "zenvoy is not running" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "states", "wait", "timeout", "code"),
    [
        ("wake", ["Waking", "Waking", "Active"], True, ENOUGH, 0),
        ("wake", ["Waking", "Waking", "ScaledToZero"], True, ENOUGH, 1),
        ("wake", ["Waking"], True, SHORT, 1),
        ("wake", ["Waking"], False, ENOUGH, 0),
        ("sleep", ["Draining", "Draining", "ScaledToZero"], True, ENOUGH, 0),
        ("sleep", ["Draining", "Active"], True, ENOUGH, 1),
        ("sleep", ["Draining"], True, SHORT, 1),
        ("sleep", ["Draining"], False, ENOUGH, 0),
    ],
)
async def test_command_waits_for_its_result(
    tmp_path: Path, command: str, states: list[str], wait: bool, timeout: float, code: int
) -> None:
    assert await run(tmp_path, Changing(states), local.command, "web", command, wait, timeout) == code
