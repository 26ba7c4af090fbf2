"""Adapters that return the results of standalone benchmarks as rows of the common table."""

from __future__ import annotations

import asyncio
import statistics

from bench.processes import go_ahead
from bench.table import Row


def relay() -> list[Row]:
    """Measure the relay against a Go relay and an asyncio relay; ratios are medians over rounds."""
    from bench import relay as bench

    measured: list[bench.Contender] = []
    report = bench.report

    def keep(contenders: list[bench.Contender]) -> bool:
        measured.extend(contenders)
        return report(contenders)

    bench.report = keep
    bench.main()
    if not measured:
        raise RuntimeError("the relay could not be measured")
    ours, others = measured[0], {other.name: other for other in measured[1:]}
    rows = []
    for figure, name, what, unit in (
        ("cpu", "go", "CPU for a GB", "s"),
        ("cpu", "asyncio", "CPU for a GB", "s"),
        ("cpu", "haproxy", "CPU for a GB", "s"),
        ("p99", "go", "p99 of 64 ping-pongs", "µs"),
        ("p99", "haproxy", "p99 of 64 ping-pongs", "µs"),
    ):
        if name in others:
            mine, theirs = (statistics.median(one.figures[figure]) for one in (ours, others[name]))
            most = bench.TARGETS.get((figure, name))
            ratio = bench.ratio(ours, others[name], figure)
            rows.append(Row(what, mine, unit, name, theirs, max_ratio=most, spread=ratio))
    return rows


def xds() -> list[Row]:
    """Measure xDS alone, with a real Envoy."""
    from bench import xds as bench

    print(go_ahead())
    small, large = asyncio.run(bench.measure_all(bench.SIZES, "delta"))
    naive = bench.naive_cpu_ms(bench.services(bench.SIZES[1]))
    return [
        Row(
            "CPU for the first snapshot of 10,000", large.snapshot_cpu_ms, "ms", "encoding by betterproto2", naive, 1000
        ),
        Row("xDS CPU for a wake of 10,000", large.wake_cpu_ms, "ms", "of 1,000", small.wake_cpu_ms, 2, 1.2),
        Row("xDS bytes for a wake of 10,000", large.wake_bytes, "bytes", "of 1,000", small.wake_bytes, 1000, 1.2),
    ]
