"""A real Prometheus for a test, an exporter in Envoy's place, and a source of samples."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import yaml
from aiohttp import web

from reconciler.core.traffic import Sample
from reconciler.envoy.prometheus.settings import PrometheusSettings
from reconciler.envoy.prometheus.stats import CLUSTER_TAG, FIELDS, SCRAPED, PrometheusStats
from tests.ports import free_port
from xds.bootstrap.document import ADS_CLUSTER, NODE_TAG

Rule = Mapping[str, object]
"""An entry of `metric_relabel_configs`."""
PATIENCE_SECONDS = 60.0
SCRAPE_SECONDS = 0.25


def text(node: str, requests: float, uptime: float) -> str:
    """Return metrics as Envoy writes them: its own, its ADS cluster's and one service's."""
    label = f'zenvoy_node="{node}"'
    return "".join(f'{name}{{{label},envoy_cluster_name="{ADS_CLUSTER}"}} 1\n' for name in FIELDS) + (
        f"envoy_server_uptime{{{label}}} {uptime}\n"
        f'envoy_cluster_upstream_rq_total{{{label},envoy_cluster_name="shop~web"}} {requests}\n'
        f'envoy_cluster_upstream_cx_rx_bytes_total{{{label},envoy_cluster_name="shop~web"}} 30\n'
        f'envoy_cluster_upstream_cx_tx_bytes_total{{{label},envoy_cluster_name="shop~web"}} 12\n'
    )


def rows(node: str, at: float, uptime: float, services: int = 1) -> list[dict[str, object]]:
    """Return the same metrics as rows of Prometheus, scraped at `at`."""
    of: dict[str, object] = {NODE_TAG: node}
    clusters = (ADS_CLUSTER, *(f"web-{number}" for number in range(services)))
    figures = [{**of, "__name__": name, CLUSTER_TAG: cluster} for name in FIELDS for cluster in clusters]
    counted: list[dict[str, object]] = [{"metric": labels, "value": [at, "1"]} for labels in figures]
    return [
        *counted,
        {"metric": {**of, "__name__": "envoy_server_uptime"}, "value": [at, str(uptime)]},
        {"metric": {**of, SCRAPED: "at"}, "value": [at, str(at)]},
    ]


class Exporter:
    """An exporter of the metrics of two Envoys; an answer of None hangs."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.requests: dict[str, float | None] = {"one": 7, "two": 5}

    async def answer(self, request: web.Request) -> web.Response:
        node = request.match_info["node"]
        requests = self.requests[node]
        if requests is None:
            await asyncio.Event().wait()
        assert requests is not None
        return web.Response(text=text(node, requests, time.monotonic() - self.began))


@asynccontextmanager
async def served(app: web.Application) -> AsyncIterator[int]:
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def prometheus(directory: Path, target: str, rules: Mapping[str, Sequence[Rule]]) -> AsyncIterator[str]:
    """Run a real Prometheus that scrapes these paths of `target`, an `ip:port`, with relabelling `rules`."""
    jobs = [
        {
            "job_name": path.replace("/", "-"),
            "metrics_path": path,
            "static_configs": [{"targets": [target]}],
            "metric_relabel_configs": list(relabelled),
        }
        for path, relabelled in rules.items()
    ]
    interval = f"{int(SCRAPE_SECONDS * 1000)}ms"
    whole = {"global": {"scrape_interval": interval, "scrape_timeout": interval}, "scrape_configs": jobs}
    (directory / "prometheus.yml").write_text(yaml.safe_dump(whole))
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        "prometheus",
        f"--config.file={directory}/prometheus.yml",
        f"--storage.tsdb.path={directory}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        await process.wait()


def source(url: str, nodes: set[str], ahead: float = 0.0, timeout: float = 10.0) -> PrometheusStats:
    settings = PrometheusSettings(url, SCRAPE_SECONDS, timeout=timeout)
    return PrometheusStats(settings, lambda: time.time() + ahead, lambda: frozenset(nodes))


async def sampled(stats: PrometheusStats, wanted: Callable[[Sample], bool]) -> Sample:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not wanted(sample := await stats.sample()):
            await asyncio.sleep(0.05)
    return sample
