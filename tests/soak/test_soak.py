"""A short soak, and the rules of its report."""

from __future__ import annotations

import errno
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.soak.run import COMPONENTS, PROGRAM, Kill, Loss, Report, Soak
from tests.soak.surroundings import SmallDisk, SteppedClock, step

READ_CLOCKS = """
import datetime, threading, time
for line in open(0):
    threading.Event().wait(0.01)
    time.sleep(0.01)
    moments = time.time(), datetime.datetime.now().timestamp()
    print(*moments, time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME), flush=True)
"""


@pytest.mark.cc
@pytest.mark.envoy
@pytest.mark.root
def test_soak_answers_every_request_once(tmp_path: Path) -> None:
    report = Soak(tmp_path, seed=1, quiet_seconds=3).run(20)
    assert report.faults == []
    assert report.wakes > 0 and report.steps > 0 and report.fills > 0
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


@pytest.mark.cc
@pytest.mark.parametrize(("child", "stepped"), [("reconciler", True), ("keeper", True), ("envoy", False)])
def test_clock_is_set_for_parts_of_zenvoy_only(tmp_path: Path, child: str, stepped: bool) -> None:
    clock = SteppedClock(tmp_path)
    environment = {**clock.environment, "ZENVOY_CHILD": f"1-2/{child}"}
    with subprocess.Popen(
        [sys.executable, "-c", READ_CLOCKS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
        bufsize=1,
    ) as process:
        assert process.stdin and process.stdout
        seen = []
        for ahead in (0, 7200, -86_400):
            clock.set(ahead)
            process.stdin.write("\n")
            *walls, monotonic, boot = map(float, process.stdout.readline().split())
            seen.append([clock - monotonic for clock in (*walls, boot)])
        process.stdin.close()
    hours = [[round((now - first) / 3600) for now, first in zip(row, seen[0], strict=True)] for row in seen]
    assert hours == ([[0, 0, 0], [2, 2, 0], [-24, -24, 0]] if stepped else [[0, 0, 0]] * 3)


def test_step_is_minutes_to_hours_in_both_directions() -> None:
    chance = random.Random(1)
    steps = [step(chance, 0) for _ in range(100)]
    assert min(map(abs, steps)) >= 60 and max(map(abs, steps)) <= 6 * 3600
    assert min(steps) < 0 < max(steps)


@pytest.mark.root
def test_disk_is_full_until_it_is_emptied(tmp_path: Path) -> None:
    with SmallDisk(tmp_path / "state") as disk:
        file = tmp_path / "state" / "file"
        disk.fill()
        with pytest.raises(OSError, match="No space left") as raised:
            file.write_bytes(b"x")
        assert raised.value.errno == errno.ENOSPC
        disk.empty()
        file.write_bytes(b"x")
    assert not any((tmp_path / "state").iterdir())
