"""The command `python -m bench [NAME…]`, which runs benchmarks and prints one table. `make bench` runs all of them.

Each benchmark runs in its own process and measures zenvoy and a reference in the same run, because ratios and CPU time
mean more than milliseconds on a shared machine. The exit code is 0 if everything was measured, even if a target is
missed; the table shows the targets.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import signal
import subprocess
import sys
import time

from bench import table
from bench.processes import running, say

BENCHMARKS = {
    "wake": "bench.wake:measure",
    "relay": "bench.borrowed:relay",
    "held": "bench.held:measure",
    "xds": "bench.borrowed:xds",
    "services": "bench.services:measure",
    "kubernetes": "bench.kubernetes:measure",
    "many": "bench.many:measure",
    "prometheus": "bench.prometheus:measure",
}
"""By name, the function that measures and returns rows."""
SECONDS = 150.0
"""Time limit of one benchmark."""


def measured(name: str) -> list[table.Row]:
    """Return the rows of one benchmark, measured in this process."""
    with contextlib.redirect_stdout(sys.stderr):
        module, _, function = BENCHMARKS[name].partition(":")
        rows: list[table.Row] = getattr(importlib.import_module(module), function)()
    return rows


def measured_apart(name: str) -> list[table.Row]:
    """Return the rows of one benchmark, measured in its own process; none if it failed."""
    say(f"bench: {name}")
    begin = time.monotonic()
    command = [sys.executable, "-m", "bench", name, "-o", "json", "--here"]
    with running(command, output=subprocess.PIPE) as process:
        try:
            output, _ = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            say(f"bench: {name} took longer than {SECONDS:g} s and is ended")
            return []
    say(f"bench: {name} took {time.monotonic() - begin:.0f} s")
    return table.from_json(json.loads(output))[name] if process.returncode == 0 else []


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure speed and size beside references.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    parser.add_argument("--here", action="store_true", help="in this process, for a profiler")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in BENCHMARKS]:
        parser.error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(BENCHMARKS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    measure = measured if options.here else measured_apart
    rows = {name: measure(name) for name in options.names or BENCHMARKS}
    print(json.dumps(table.as_json(rows), indent=2) if options.output == "json" else table.as_text(rows))
    return 0 if all(rows.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
