"""A short soak, and the rules of its report."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.run import COMPONENTS, PROGRAM, Kill, Loss, Report, Soak


@pytest.mark.envoy
def test_soak_answers_every_request_once(tmp_path: Path) -> None:
    report = Soak(tmp_path, seed=1, quiet_seconds=3).run(20)
    assert report.faults == []
    assert report.wakes > 0
    assert set(report.requests) == {"http", "h2c", "tcp", "tls"}
    assert {kill.victim for kill in report.kills} <= {*COMPONENTS, PROGRAM}


def test_report_excuses_requests_through_the_victim() -> None:
    report = Report(kills=[Kill("program", "web0", 10, 11), Kill("reconciler", None, 20, 21)])
    excused = Loss("web0", "1", sent=9, failed=10.5, error="cut")
    later = Loss("web0", "2", sent=11.5, failed=12, error="cut")
    other = Loss("web1", "3", sent=9, failed=10.5, error="cut")
    reconciler = Loss("web0", "4", sent=19, failed=20.5, error="cut")
    report.losses += [excused, later, other, reconciler]
    assert report.unexcused == [later, other, reconciler]


def test_report_names_a_component_that_grows() -> None:
    flat, growing = [(100_000_000, 30)] * 60, [(100_000_000 + at * 4_000_000, 30) for at in range(60)]
    assert Report(usage={"envoy": flat, "holder": growing}).growth == ["holder: memory grew from 218 to 298 MB"]
    leaking = [(100_000_000, 30 + 4 * at) for at in range(60)]
    assert Report(usage={"envoy": leaking}).growth == ["envoy: descriptors grew from 148 to 228"]
