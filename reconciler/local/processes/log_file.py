"""What the services' programs write: a log file for each, and its last lines as the reason of a failure.

Rule: programs write to the file themselves, so nothing is lost and nothing blocks when zenvoy is gone.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import structlog

from reconciler.local import private_files

log = structlog.get_logger(__name__)

ROTATE_BYTES = 10 * 1024 * 1024
LINES = 5
CHARACTERS = 500
_UNPRINTABLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[^\x20-\x7e\xa0-\U0010ffff]")


class Output:
    """One run's part of a service's log file, `service.log`; an earlier file past 10 MB becomes `service.log.1`."""

    def __init__(self, folder: Path, service: str) -> None:
        self.path = folder / f"{service}.log"
        self._start = self._size()

    def open(self) -> int:
        """Return a descriptor to append to; the caller closes it.

        A log file that cannot be opened keeps no program from running: its output is then discarded.
        """
        try:
            if self._start > ROTATE_BYTES:
                self.path.replace(self.path.with_suffix(".log.1"))
                self._start = 0
            return private_files.open_append(self.path)
        except OSError as error:
            log.error("a log file cannot be opened; the output is discarded", file=str(self.path), error=error.strerror)
            return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)

    def last_lines(self) -> str:
        """The last lines that this run wrote, in one line, shortened at the front."""
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
