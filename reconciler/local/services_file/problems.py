"""The mistakes in a file: all of them, in the order of the file.

Rule: a problem says where it is, what is wrong, and what would be right. Its words hold parts of the file: they are
printable and bounded, and so is their number.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake; `str()` is the line for people."""

    file: str
    line: int
    """From 1; 0: the file as a whole."""
    column: int
    where: str
    """The place in words of the file, as in `services[1].idleAfter`; empty: nowhere in particular."""
    what: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return ": ".join(part for part in (place, self.where, self.what) if part)


MAX_WORDS = 600
"""Characters of one problem."""
MAX_PROBLEMS = 500


class Problems:
    """Collects the mistakes in one file."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._found: set[Problem] = set()

    def add(self, line: int, column: int, where: str, what: str) -> None:
        """Lines and columns count from 1; the same mistake counts once."""
        if len(self._found) < MAX_PROBLEMS:
            self._found.add(Problem(self._file, line, column, _printable(where), _printable(what)))

    @property
    def any(self) -> bool:
        """Whether there is a mistake."""
        return bool(self._found)

    def found(self) -> list[Problem]:
        """All of them, in order."""
        return sorted(self._found)


def _printable(text: str) -> str:
    text = text if len(text) <= MAX_WORDS else f"{text[: MAX_WORDS // 2]} … {text[-MAX_WORDS // 2 :]}"
    return text if text.isprintable() else "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
