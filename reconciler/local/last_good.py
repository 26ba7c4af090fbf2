"""The services file as the reconciler reads it, and a copy of its last content without a mistake.

While the file has mistakes, the copy is in force: at a reload, when the reconciler starts again, and when `zenvoy up`
starts. Blocks: a running reconciler calls it in a thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog

from reconciler.core.address import Address
from reconciler.local import private_files
from reconciler.local.services_file import Problem, ServicesFile, read, read_bounded

log = structlog.get_logger()

MOST_LISTED = 20
"""Mistakes in one log line."""


def load(file: Path, copy: Path, taken: Mapping[str, Address]) -> ServicesFile | list[Problem]:
    """Return the file, which then is the last good one, or all its mistakes; `taken` is where it cannot listen."""
    try:
        content = read_bounded(file)
    except OSError:
        return read(file)
    found = read(file, content, taken)
    if isinstance(found, ServicesFile):
        try:
            private_files.write(copy, content)
        except OSError as error:
            log.error("the services file cannot be copied for a later start", copy=str(copy), error=str(error))
    return found


def last_good(file: Path, copy: Path, taken: Mapping[str, Address]) -> ServicesFile | None:
    """Return the last good content, if it is known and still good."""
    try:
        content = private_files.read(copy)
    except FileNotFoundError:
        return None
    except OSError as error:
        log.error("the copy of the last good services file cannot be read", copy=str(copy), error=str(error))
        return None
    found = read(file, content, taken)
    return found if isinstance(found, ServicesFile) else None


def load_or_last_good(
    file: Path, copy: Path, taken: Mapping[str, Address]
) -> tuple[ServicesFile | None, list[Problem]]:
    """Return the file, or the last good one and the mistakes of the file; None where there is no good one."""
    found = load(file, copy, taken)
    if isinstance(found, ServicesFile):
        return found, []
    return last_good(file, copy, taken), found


def log_problems(problems: Sequence[Problem]) -> None:
    """Log why what is in force is not what the file says."""
    listed = [str(problem) for problem in problems[:MOST_LISTED]]
    log.error(
        "the file has mistakes; the last good one stays in force", problems=listed, more=len(problems) - len(listed)
    )
