"""One round of samples from a real Prometheus for 10,000 services with 1 % in use: query, decoding, and events.

The scraped text equals Envoy's: with `usedonly` and counters that are created on first use, it contains only services
that were ever used. The second figure is the worst case, in which all services were used. CPU time is that of the
benchmark's process, including the client thread and the engine. Prometheus and its target run in other processes.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import yaml

from bench.processes import free_port, running, say, wait_for
from bench.table import Row
from reconciler.core.record import State
from reconciler.core.spec import Spec
from reconciler.core.traffic import Pace
from reconciler.engine.engine import Adapters, Engine
from reconciler.engine.hold_addresses import AnyIp
from reconciler.envoy.prometheus.settings import PrometheusSettings
from reconciler.envoy.prometheus.stats import PrometheusStats
from reconciler.ports.backend import WorkloadStatus
from reconciler.ports.clock import Clock
from reconciler.ports.holders import HoldStatus
from xds.bootstrap.document import ADS_CLUSTER

SERVICES, IN_USE = 10_000, 100
ROUNDS, MAX_SECONDS = 7, 65.0
SCRAPE_SECONDS = 2.0
CPU_MS = 100.0
NODE = "envoy-1"
FIGURES = ("rq_total", "rq_active", "cx_total", "cx_active", "cx_rx_bytes_total", "cx_tx_bytes_total")


def measure() -> list[Row]:
    """Return all rows."""
    some = _round_ms(ever_used=IN_USE)
    everything = _round_ms(ever_used=SERVICES)
    return [
        Row(
            f"CPU for a round of {SERVICES:,}, {IN_USE} in use",
            some,
            "ms",
            "all of them ever used",
            everything,
            CPU_MS,
        )
    ]


def _round_ms(ever_used: int) -> float:
    say(f"prometheus: {SERVICES:,} services, {ever_used:,} ever used, {IN_USE} in use")
    with tempfile.TemporaryDirectory(prefix="zenvoy") as name, _scraped(Path(name), ever_used) as (url, page):
        return asyncio.run(_rounds(url, page, ever_used))


async def _rounds(url: str, page: Path, ever_used: int) -> float:
    settings = PrometheusSettings(url, SCRAPE_SECONDS, timeout=10.0)
    source = PrometheusStats(settings, time.time, lambda: frozenset({NODE}))
    engine = _engine()
    costs: list[float] = []
    began = time.monotonic()
    for number in count(1):
        _write(page, ever_used, number)
        await asyncio.sleep(1.5 * SCRAPE_SECONDS)
        before = time.process_time()
        engine.sampled(await source.sample())
        if engine.unknown is None:  # the first has no predecessor, and a busy machine misses a scrape
            costs.append((time.process_time() - before) * 1000)
        if len(costs) == ROUNDS or time.monotonic() - began > MAX_SECONDS:
            break
    assert len(costs) == ROUNDS, f"only {len(costs)} complete samples; the last: {engine.unknown}"
    in_use = sum(1 for service in engine.services.values() if service.requests)
    assert in_use >= IN_USE, f"{in_use} were seen in use"
    await source.close()
    return statistics.median(costs)


def _write(page: Path, ever_used: int, number: int) -> None:
    lines = [f'envoy_server_uptime{{zenvoy_node="{NODE}"}} {time.monotonic():.0f}']
    used = {f"service-{service}": number if service < IN_USE else 1 for service in range(ever_used)}
    for cluster, value in {ADS_CLUSTER: 1, **used}.items():
        labels = f'envoy_cluster_name="{cluster}",zenvoy_node="{NODE}"'
        lines += [f"envoy_cluster_upstream_{figure}{{{labels}}} {value}" for figure in FIGURES]
    new = page.with_suffix(".new")
    new.write_text("\n".join(lines) + "\n")
    os.replace(new, page)


@contextmanager
def _scraped(directory: Path, ever_used: int) -> Iterator[tuple[str, Path]]:
    """Run a Prometheus that scrapes a page; yield its address and the page."""
    pages = directory / "pages"
    pages.mkdir()
    _write(pages / "metrics", ever_used, 0)
    shown, port = free_port(), free_port()
    every = f"{round(SCRAPE_SECONDS * 1000)}ms"
    scrape = {"job_name": "envoy", "static_configs": [{"targets": [f"127.0.0.1:{shown}"]}]}
    config: dict[str, Any] = {"global": {"scrape_interval": every, "scrape_timeout": every}, "scrape_configs": [scrape]}
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
    url = f"http://127.0.0.1:{port}"
    server = [sys.executable, "-m", "http.server", str(shown), "--bind", "127.0.0.1", "--directory", str(pages)]
    prometheus = ["prometheus", f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/tsdb"]
    prometheus += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]
    with running(server, output=subprocess.DEVNULL, stderr=subprocess.DEVNULL), running(prometheus):
        wait_for(lambda: _answers(f"{url}/-/ready"), "Prometheus")
        yield url, pages / "metrics"


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


class _Nowhere:
    """The adapters of an engine, without any effect."""

    def __init__(self) -> None:
        self._indexes = count()

    def records(self) -> dict[str, Any]:
        return {}

    def paused(self) -> frozenset[str]:
        return frozenset()

    def next_index(self) -> int:
        return next(self._indexes)

    def envoys(self) -> frozenset[str]:
        return frozenset({NODE})

    def away(self) -> frozenset[str]:
        return frozenset()

    def __getattr__(self, _: str) -> Any:
        return lambda *_, **__: None


def _engine() -> Engine:
    """Return an engine in which all services sleep, except those in use."""
    nowhere: Any = _Nowhere()
    engine = Engine(Clock(), Pace(60.0), AnyIp(1), nowhere)
    engine.start(Adapters(nowhere, nowhere, nowhere, nowhere.arm, nowhere, lambda _: None))
    names = [f"service-{number}" for number in range(SERVICES)]
    engine.configure([Spec(name=name, hosts=(name,)) for name in names])
    for number, name in enumerate(names):
        awake = number < IN_USE
        engine.ran(WorkloadStatus(name, int(awake), ("127.0.0.1:1",) if awake else ()))
        engine.held(HoldStatus(name, held=0, relayed=0))
    active = sum(1 for service in engine.services.values() if service.record and service.record.state is State.Active)
    assert active == IN_USE
    return engine
