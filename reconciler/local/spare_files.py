"""Files that can be written while the disk is full, because their space is allocated before.

A spare file is overwritten in place and then renamed. A file that is no longer needed becomes a spare. On a file system
that copies on write, such as Btrfs, overwriting needs space nevertheless.
"""

from __future__ import annotations

import itertools
import os
from contextlib import suppress
from pathlib import Path

from reconciler.local import private_files

SPARE_BYTES = 4096
"""The size of a file; longer content is written without a spare."""


class SpareFiles:
    """Spare files for the files of one file system."""

    def __init__(self, directory: Path, count: int) -> None:
        """Allocate `count` spare files, or as many as the disk has space for, in a directory for them alone."""
        private_files.make_directory(directory)
        self._directory, self._count, self._numbers = directory, count, itertools.count()
        self._spares: list[Path] = []
        for path in sorted(directory.iterdir()):
            with suppress(OSError):
                self._put_back(path)
        with suppress(OSError):
            for _ in range(count - len(self._spares)):
                path = self._unused()
                try:
                    _overwrite(path, b"")
                finally:
                    self._put_back(path)

    def write(self, path: Path, content: bytes) -> None:
        """Replace a file atomically by the content, padded with spaces. Raises OSError."""
        fresh = self._taken()
        try:
            _overwrite(fresh, content)
            self._keep(path)
            fresh.replace(path)
        finally:
            self._put_back(fresh)  # unless it was renamed

    def delete(self, path: Path) -> None:
        """Delete a file, if it exists. Raises OSError."""
        self._keep(path)
        path.unlink(missing_ok=True)

    def _taken(self) -> Path:
        """Return a spare file, which is none any more; an unused path if there is none left. Raises OSError."""
        while self._spares:
            if _is_spare(path := self._spares.pop()):
                return path
            path.unlink(missing_ok=True)
        return self._unused()

    def _put_back(self, path: Path) -> None:
        """Add a file to the spares, or delete it if it is none. Raises OSError."""
        if _is_spare(path):
            self._spares.append(path)
        else:
            path.unlink(missing_ok=True)

    def _keep(self, path: Path) -> None:
        """Make a spare of a file that is about to be replaced or deleted."""
        with suppress(OSError):
            if len(self._spares) < self._count and _is_spare(path):
                spare = self._unused()
                spare.hardlink_to(path)
                self._spares.insert(0, spare)

    def _unused(self) -> Path:
        """Return a path in the directory that does not exist."""
        paths = (self._directory / str(number) for number in self._numbers)
        return next(path for path in paths if not path.exists())


def _is_spare(path: Path) -> bool:
    """Return whether a file has the size of a spare, and is not in use under another name."""
    try:
        seen = path.lstat()
    except OSError:
        return False
    return seen.st_size == SPARE_BYTES and seen.st_nlink == 1


def _overwrite(path: Path, content: bytes) -> None:
    """Replace the content without freeing the space of the file. Raises OSError."""
    with os.fdopen(private_files.open_file(path, os.O_WRONLY), "wb") as file:
        file.write(content.ljust(SPARE_BYTES))
