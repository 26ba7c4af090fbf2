"""The services file as the reconciler sees it, and a copy of what it last said without a mistake.

A reconciler that is started again while the file has mistakes goes by the copy: what was in force stays in force.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog

from reconciler.adapters.services_file import Problem, ServicesFile, read
from reconciler.adapters.services_file.addresses import Address

log = structlog.get_logger()


def look(file: Path, copy: Path, taken: Mapping[str, Address]) -> ServicesFile | list[Problem]:
    """The file, which then is the last good one, or all its mistakes; `taken` is where nothing of it can listen."""
    try:
        content = file.read_bytes()
    except OSError:
        return read(file)
    found = read(file, content, taken)
    if isinstance(found, ServicesFile):
        new = copy.with_suffix(".new")
        try:
            new.write_bytes(content)
            new.replace(copy)
        except OSError as error:
            log.error("the services file cannot be copied for a later start", copy=str(copy), error=str(error))
    return found


def last_good(file: Path, copy: Path, taken: Mapping[str, Address]) -> ServicesFile | None:
    """What the file said when it was last good, if that is known and good still."""
    if not copy.exists():
        return None
    found = read(file, copy.read_bytes(), taken)
    return found if isinstance(found, ServicesFile) else None


def in_force(file: Path, copy: Path, taken: Mapping[str, Address]) -> ServicesFile | list[Problem]:
    """The file; the last good one while it has mistakes; the mistakes when there was none."""
    found = look(file, copy, taken)
    if isinstance(found, ServicesFile) or (before := last_good(file, copy, taken)) is None:
        return found
    tell(found)
    return before


def tell(problems: Sequence[Problem]) -> None:
    """In the log: why what is in force is not what the file says."""
    listed = [str(problem) for problem in problems]
    log.error("the file has mistakes; the last good one stays in force", problems=listed)
