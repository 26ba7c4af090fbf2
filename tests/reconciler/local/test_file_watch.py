"""Watching of the services file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog

from reconciler.local.file_watch import watch

PATIENCE_SECONDS = 60.0


async def test_watch_missing_folder_is_retried_and_logged_once(tmp_path: Path) -> None:
    file = tmp_path / "later" / "services.yaml"
    changed = asyncio.Event()
    with structlog.testing.capture_logs() as lines:
        task = asyncio.create_task(watch(file, changed.set, retry_seconds=0.01))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not lines:
                await asyncio.sleep(0.01)
            file.parent.mkdir()
            while not changed.is_set():
                file.write_text(f"services: []  # {asyncio.get_running_loop().time()}")
                await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert [line["event"] for line in lines] == ["changes of the file are not noticed; SIGHUP applies it"]


@pytest.mark.parametrize("layout", ["file", "folder", "two-links"])
async def test_watch_replaced_link_is_noticed_with_its_new_file(tmp_path: Path, layout: str) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "services.yaml").write_text(name)
    link = tmp_path / ("services.yaml" if layout == "file" else "current")
    within = "services.yaml" if layout == "file" else ""
    file = {"file": link, "folder": link / "services.yaml", "two-links": tmp_path / "linked.yaml"}[layout]
    if layout == "two-links":  # as kubelet mounts a ConfigMap
        file.symlink_to(Path("current/services.yaml"))
    link.symlink_to(tmp_path / "first" / within)
    seen = [""]
    task = asyncio.create_task(watch(file, lambda: seen.append(file.read_text())))

    async def until_seen(content: str, again: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while seen[-1] != content:
                again()
                await asyncio.sleep(0.05)

    try:
        await until_seen("changed", lambda: (tmp_path / "first" / "services.yaml").write_text("changed"))
        replacement = tmp_path / "replacement"
        replacement.symlink_to(tmp_path / "second" / within)
        replacement.rename(link)
        await until_seen("second", lambda: None)
        await until_seen("again", lambda: (tmp_path / "second" / "services.yaml").write_text("again"))
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_watch_link_to_itself_is_watched(tmp_path: Path) -> None:
    file = tmp_path / "services.yaml"
    file.symlink_to(file)
    changed = asyncio.Event()
    task = asyncio.create_task(watch(file, changed.set))
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not changed.is_set():
            file.unlink()
            file.write_text("services: []")
            await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
