"""Parts of every suite: one `zenvoy up` per file, and a table of cases and failures at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conformance.programs import BUILD_SECONDS
from tests.e2e.conftest import pytest_runtest_makereport, shared_zenvoy

__all__ = ["pytest_runtest_makereport", "shared_zenvoy"]

_PROPERTY = "conformance"
WAYS = ("direct", "asleep", "awake")
_TEST_SECONDS = 300 + 2 * BUILD_SECONDS
"""The first test of a suite builds its client and its server."""


@dataclass(frozen=True)
class Outcome:
    """The result of one case of a suite on each way: an error, or `None` if it passed."""

    direct: str | None
    asleep: str | None
    awake: str | None

    def added(self) -> dict[str, str]:
        """Return the errors that exist only through zenvoy, by way."""
        through = {"asleep": self.asleep, "awake": self.awake}
        return {way: error for way, error in through.items() if error and not self.direct}

    def failed(self) -> list[str]:
        """Return the ways on which the case failed."""
        return [way for way in WAYS if getattr(self, way)]


Record = Callable[[str, Outcome], None]


@pytest.fixture
def record(record_property: Callable[[str, object], None]) -> Record:
    """Record the outcome of one case of a suite for the table at the end."""
    return lambda suite, outcome: record_property(_PROPERTY, [suite, outcome.failed()])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test here as one that needs the programs of the suites."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("conformance")
            item.add_marker(pytest.mark.timeout(_TEST_SECONDS))
            item.add_marker("envoy")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the number of cases and failures of each suite."""
    cases: Counter[str] = Counter()
    failures: Counter[tuple[str, str]] = Counter()
    for suite, failed in _recorded(terminalreporter):
        cases[suite] += 1
        failures.update((suite, way) for way in failed)
    if cases:
        terminalreporter.section("conformance")
        terminalreporter.write_line(f"{'suite':32}{'cases':>8}" + "".join(f"{way:>8}" for way in WAYS))
    for suite, count in sorted(cases.items()):
        counts = "".join(f"{failures[suite, way]:>8}" for way in WAYS)
        terminalreporter.write_line(f"{suite:32}{count:>8}{counts}")


def _recorded(terminalreporter: pytest.TerminalReporter) -> Iterator[tuple[str, list[str]]]:
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) == "call":
                yield from (value for name, value in report.user_properties if name == _PROPERTY)
