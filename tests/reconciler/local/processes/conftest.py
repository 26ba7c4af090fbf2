"""Scenes, removed after each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from reconciler.local.processes.program import Program
from tests.reconciler.local.processes.scene import Scene

Stage = Callable[..., Scene]


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """Make a scene: `stage(program)` for one service `s`, or `stage(a=…, b=…)`."""
    scenes: list[Scene] = []

    def make(program: Program | None = None, **programs: Program) -> Scene:
        scenes.append(Scene(tmp_path / "state", {"s": program, **programs} if program else programs))
        return scenes[-1]

    yield make
    for scene in scenes:
        scene.backend.kill()
        await scene.backend.close()
