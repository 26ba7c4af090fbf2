"""Notices when the services file changes. Rule: where that cannot be noticed, everything else goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog
from watchfiles import awatch

log = structlog.get_logger()

AGAIN_SECONDS = 10.0


async def watch(file: Path, changed: Callable[[], None], again_seconds: float = AGAIN_SECONDS) -> None:
    """Until cancelled. The folder is watched, since editors put a new file in the old one's place."""
    said = False
    while True:
        try:
            async for _ in awatch(file.parent, watch_filter=lambda _, path: Path(path) == file, recursive=False):
                changed()
        except (OSError, RuntimeError) as error:  # a RuntimeError is how watchfiles says that inotify(7) has no more
            if not said:
                log.warning("changes of the file are not noticed; SIGHUP applies it", file=str(file), error=str(error))
            said = True
        await asyncio.sleep(again_seconds)
