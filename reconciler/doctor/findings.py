"""What doctor finds. Plain values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Level(StrEnum):
    """How bad it is."""

    PROBLEM = "problem"
    """Something does not work, or two fight over it; the exit code tells."""
    NOTE = "note"
    """Worth knowing; nothing is wrong as long as it is known."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be."""

    where: str
    what: str
    remedy: str
    level: Level = Level.PROBLEM


@dataclass(frozen=True, slots=True)
class Examined:
    """One thing that was looked at; `found` is empty when all is well with it."""

    check: str
    said: str
    """What was seen, in short."""
    found: tuple[Finding, ...] = ()

    @property
    def problems(self) -> int:
        return sum(finding.level is Level.PROBLEM for finding in self.found)


def as_data(examined: list[Examined]) -> dict[str, Any]:
    """Of `-o json`."""
    return {
        "problems": sum(one.problems for one in examined),
        "checks": [{"check": one.check, "problems": one.problems, "said": one.said} for one in examined],
        "findings": [
            {"check": one.check, **asdict(finding), "level": finding.level.value}
            for one in examined
            for finding in one.found
        ],
    }
