"""Random traffic of every protocol, with random kills of every process, steps of the clock, and full disks."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path
from statistics import median

from tests.soak.run import Report, Soak

SHOWN_FAULTS = 20


def main() -> int:
    """Run the soak and print its report. Return 1 if a request was lost without an excuse, or something grew."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="how long (default: %(default)g)")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32), help="of an earlier run, to repeat it")
    parser.add_argument("--true-clock", action="store_true", help="never set the clock")
    parser.add_argument("--empty-disk", action="store_true", help="never fill the disk")
    options = parser.parse_args()
    print(f"soak: {options.minutes:g} min, seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="zenvoy-soak-") as directory:
        sets_clock, fills_disk = not options.true_clock, not options.empty_disk
        soak = Soak(Path(directory), options.seed, sets_clock=sets_clock, fills_disk=fills_disk)
        report = soak.run(options.minutes * 60)
    print(text(report))
    return 1 if report.faults else 0


def text(report: Report) -> str:
    """Return the report for people."""
    kills = Counter(kill.victim for kill in report.kills)
    excused = len(report.losses) - len(report.unexcused)
    lines = [
        f"answered: {report.requests.total()} ({_counts(report.requests)}); wakes: {report.wakes}",
        f"kills: {kills.total()} ({_counts(kills)}); requests that they cut in flight: {excused}",
        f"steps of the clock: {report.steps}; full disks: {report.fills}",
        *(_usage(name, usage) for name, usage in sorted(report.usage.items())),
        *(f"FAULT {fault}" for fault in report.faults[:SHOWN_FAULTS]),
        f"faults: {len(report.faults)}",
    ]
    return "\n".join(lines)


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def _usage(name: str, usage: list[tuple[int, int]]) -> str:
    half = len(usage) // 2 or 1
    memory = [median(rss for rss, _ in part) / 1e6 for part in (usage[:half], usage[-half:])]
    files = [median(count for _, count in part) for part in (usage[:half], usage[-half:])]
    return f"{name:<12} {memory[0]:4.0f} → {memory[1]:4.0f} MB, {files[0]:3.0f} → {files[1]:3.0f} descriptors"


if __name__ == "__main__":
    sys.exit(main())
