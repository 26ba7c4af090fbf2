"""Watching of the services file."""

from __future__ import annotations

import asyncio
from pathlib import Path

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
