"""Log files for the output of programs. The last lines serve as the reason of a failure.

Programs write to the file themselves, so that nothing is lost and nothing blocks while zenvoy is not running.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path

import structlog

from reconciler.local import private_files

log = structlog.get_logger(__name__)

ROTATE_BYTES = 10 * 1024 * 1024
LINES = 5
CHARACTERS = 500
_UNPRINTABLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[^\x20-\x7e\xa0-\U0010ffff]")


class LogFile:
    """The log file `service.log`, from the start of one run. Content over 10 MB is moved to `service.log.1`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start = self._size()

    def open(self) -> int:
        """Return a descriptor to append to; the caller closes it.

        If the file cannot be opened, or the disk is full, the output is discarded and the program runs nevertheless:
        many programs end when they cannot write.
        """
        try:
            if self._start > ROTATE_BYTES:
                self.path.replace(self.path.with_suffix(".log.1"))
                self._start = 0
            descriptor = private_files.open_file(self.path)
            if os.fstatvfs(descriptor).f_bavail:
                return descriptor
            os.close(descriptor)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            log.error("failed to open a log file; its output is discarded", file=str(self.path), error=error.strerror)
            return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)

    def rotate(self) -> None:
        """Move the content to `service.log.1` if the file is over 10 MB, while a program appends to it.

        The program keeps its descriptor, so the file is copied and truncated. If the disk is full, nothing happens.
        """
        if self._size() <= ROTATE_BYTES:
            return
        older = self.path.with_suffix(".log.1")
        try:
            older.unlink(missing_ok=True)
            with self.path.open("rb") as content, os.fdopen(private_files.open_file(older), "wb") as copy:
                shutil.copyfileobj(content, copy)
            os.truncate(self.path, 0)
            self._start = 0
        except OSError as error:
            log.error("failed to rotate a log file", file=str(self.path), error=error.strerror)

    def last_lines(self) -> str:
        """Return the last lines of this run in one line, shortened at the front."""
        try:
            with self.path.open("rb") as file:
                file.seek(max(self._start, self._size() - 4 * CHARACTERS))
                text = file.read(4 * CHARACTERS).decode(errors="replace")
        except OSError:
            return ""
        lines = [line for raw in text.splitlines() if (line := _UNPRINTABLE.sub("", raw).strip())]
        joined = " | ".join(lines[-LINES:])
        return joined if len(joined) <= CHARACTERS else f"…{joined[1 - CHARACTERS :]}"

    def _size(self) -> int:
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0
