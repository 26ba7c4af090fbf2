"""The services file on disk: changes are noticed, and a copy of its last valid content is kept.

While the file has mistakes, the copy is in force: at a reload, when the reconciler restarts, and when `zenvoy up`
starts. All functions but `watch` block: a running reconciler calls them in a thread.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import structlog

from reconciler.core.address import Address
from reconciler.local import private_files
from reconciler.local.services_file import FileProblem, ServicesFile, read, read_bounded

log = structlog.get_logger()

MAX_LOGGED = 20
"""Mistakes in one log line."""
RETRY_SECONDS = 10.0
RECHECK_MILLISECONDS = 5000
"""The interval at which links are followed again: one can change before its new folder is watched."""
MAX_LINKS = 40
"""As many as Linux follows."""


def load(file: Path, copy: Path, taken: Mapping[str, Address]) -> ServicesFile | list[FileProblem]:
    """Return the file, after keeping a copy, or its mistakes. `taken` are the addresses of options, by option."""
    try:
        content = read_bounded(file)
    except OSError:
        return read(file)
    found = read(file, content, taken)
    if isinstance(found, ServicesFile):
        try:
            private_files.write(copy, content)
        except OSError as error:
            log.error("failed to keep a copy of the services file", copy=str(copy), error=str(error))
    return found


def last_good(file: Path, copy: Path, taken: Mapping[str, Address]) -> ServicesFile | None:
    """Return the last valid content, if there is a copy that is still valid."""
    try:
        found = read(file, private_files.read(copy), taken)
    except FileNotFoundError:
        return None
    except OSError as error:
        log.error("failed to read the copy of the services file", copy=str(copy), error=str(error))
        return None
    return found if isinstance(found, ServicesFile) else None


def log_problems(problems: Sequence[FileProblem]) -> None:
    """Log the mistakes that keep the file from being applied."""
    listed = [str(problem) for problem in problems[:MAX_LOGGED]]
    log.error(
        "the file has mistakes; keeping the last valid content", problems=listed, more=len(problems) - len(listed)
    )


async def watch(file: Path, changed: Callable[[], None], retry_seconds: float = RETRY_SECONDS) -> None:
    """Call `changed` when the file changes, until cancelled. Without inotify, only SIGHUP applies changes.

    Folders are watched, since editors replace files: that of the file, and that of each symbolic link that leads to it.
    """
    is_reported = False
    while True:
        try:
            await _watch_places(file, changed)
        except (OSError, RuntimeError) as error:  # watchfiles raises a RuntimeError if inotify(7) is exhausted
            if not is_reported:
                log.warning("changes of the file are not noticed; SIGHUP applies it", file=str(file), error=str(error))
            is_reported = True
            await asyncio.sleep(retry_seconds)


async def _watch_places(file: Path, changed: Callable[[], None]) -> None:
    """Call `changed` when the file changes, until another folder has to be watched."""
    from watchfiles import awatch  # slow to import, and the commands of the CLI do not need it

    places = _places(file)
    folders = {place.parent for place in places}
    changes = awatch(
        *folders,
        watch_filter=lambda _, path: Path(path) in places,
        recursive=False,
        rust_timeout=RECHECK_MILLISECONDS,
        yield_on_timeout=True,
    )
    async for found in changes:
        has_moved = _places(file) != places
        if found or has_moved:
            changed()
        if has_moved:
            return


def _places(file: Path) -> set[Path]:
    """Return the paths whose replacement changes the content: those of the file and of each link that leads to it."""
    places = set()
    place, rest = Path("/"), list(reversed(Path(os.path.abspath(file)).parts[1:]))
    followed = 0
    while rest:
        part = rest.pop()
        following = place.parent if part == ".." else place / part
        if followed < MAX_LINKS and following.is_symlink():
            followed += 1
            places.add(following)
            target = Path(os.readlink(following))
            place = Path("/") if target.is_absolute() else place
            rest += [part for part in reversed(target.parts) if part != "/"]
        else:
            place = following
    return {*places, place}
