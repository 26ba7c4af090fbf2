"""The content of a services file: immutable values, of which two equal ones mean that nothing changed; or its problems.

A problem has a place, a message and a fix. Messages quote parts of the file: they are printable and limited in length
and number.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from reconciler.core.spec import Spec
from reconciler.local.processes.program import Program
from reconciler.ports.router import ProxySettings

MAX_WORDS = 600
"""The longest message, in characters."""
MAX_PROBLEMS = 500


@dataclass(frozen=True, slots=True, order=True)
class FileProblem:
    """One problem; `str()` is the line for people."""

    file: str
    line: int
    """Counted from 1; 0: the whole file."""
    column: int
    where: str
    """The field, for example `services[1].idleAfter`; empty: the whole file."""
    what: str
    is_missing: bool = field(default=False, compare=False)
    """True if the file is valid, and a program or a folder is missing on this machine."""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return ": ".join(part for part in (place, self.where, self.what) if part)


@dataclass(frozen=True, slots=True)
class Entry:
    """One service: its spec and its program."""

    spec: Spec
    program: Program


@dataclass(frozen=True, slots=True)
class ServicesFile:
    """A whole file. Durations are in seconds."""

    listen_http: str | None
    """`ip:port` of the shared listener of http, h2c, and auto services."""
    listen_tls: str | None
    """`ip:port` of the shared listener of tls services."""
    proxy: ProxySettings
    """The settings of Envoy's listeners."""
    sample_interval: float
    services: tuple[Entry, ...]
    unavailable: tuple[FileProblem, ...] = ()
    """Programs and folders that are missing on this machine. Their services fail to wake; the others run."""


class Problems:
    """Collects the problems of one file."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._found: set[FileProblem] = set()

    def add(self, what: str, mark: Any = None, where: str = "", is_missing: bool = False) -> None:
        """Record a problem once; without a mark of PyYAML, it is one of the whole file."""
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        if len(self._found) < MAX_PROBLEMS:
            self._found.add(FileProblem(self._file, line, column, _printable(where), _printable(what), is_missing))

    def found(self) -> list[FileProblem]:
        """Return all problems in order."""
        return sorted(self._found)


def _printable(text: str) -> str:
    text = text if len(text) <= MAX_WORDS else f"{text[: MAX_WORDS // 2]} … {text[-MAX_WORDS // 2 :]}"
    return text if text.isprintable() else "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
