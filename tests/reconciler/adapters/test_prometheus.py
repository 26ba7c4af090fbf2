"""Samples from a real Prometheus that scrapes a small exporter in Envoy's place; and every way in which it can fail."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml
from aiohttp import web

from reconciler.adapters.prometheus.settings import PrometheusSettings
from reconciler.adapters.prometheus.stats import PrometheusStats
from reconciler.core.spec import IdleBy
from reconciler.core.traffic import Counters, Sample, Usage, Window

PATIENCE_SECONDS = 60.0
SCRAPE_SECONDS = 0.25


def text(node: str, requests: float, uptime: float) -> str:
    label = f'zenvoy_node="{node}"'
    return (
        f"envoy_server_uptime{{{label}}} {uptime}\n"
        f'envoy_cluster_upstream_rq_total{{{label},envoy_cluster_name="shop~web"}} {requests}\n'
        f'envoy_cluster_upstream_cx_rx_bytes_total{{{label},envoy_cluster_name="shop~web"}} 30\n'
        f'envoy_cluster_upstream_cx_tx_bytes_total{{{label},envoy_cluster_name="shop~web"}} 12\n'
    )


class Exporter:
    """Two Envoys' metrics, as Prometheus scrapes them; an answer of None hangs."""

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
    yield runner.addresses[0][1]
    await runner.cleanup()


@asynccontextmanager
async def prometheus(directory: Path, targets: dict[str, str]) -> AsyncIterator[str]:
    """A real Prometheus; `targets` are metrics paths by `ip:port`."""
    jobs = [
        {"job_name": path.replace("/", "-"), "metrics_path": path, "static_configs": [{"targets": [target]}]}
        for path, target in targets.items()
    ]
    interval = f"{int(SCRAPE_SECONDS * 1000)}ms"
    whole = {"global": {"scrape_interval": interval, "scrape_timeout": interval}, "scrape_configs": jobs}
    (directory / "prometheus.yml").write_text(yaml.safe_dump(whole))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        "prometheus",
        f"--config.file={directory}/prometheus.yml",
        f"--storage.tsdb.path={directory}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    )
    yield f"http://127.0.0.1:{port}"
    process.kill()
    await process.wait()


def source(url: str, nodes: set[str], ahead: float = 0.0, timeout: float = 10.0) -> PrometheusStats:
    settings = PrometheusSettings(url, SCRAPE_SECONDS, timeout=timeout)
    return PrometheusStats(
        settings, lambda: time.time() + ahead, lambda: frozenset(nodes), lambda name: name.replace("~", ".")
    )


async def sampled(stats: PrometheusStats, wanted: Callable[[Sample], bool]) -> Sample:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not wanted(sample := await stats.sample()):
            await asyncio.sleep(0.05)
    return sample


@pytest.mark.prometheus
async def test_a_sample_is_complete_then_knows_what_is_missing_and_is_complete_again(tmp_path: Path) -> None:
    exporter = Exporter()
    app = web.Application()
    app.router.add_get("/{node}", exporter.answer)
    async with served(app) as port, prometheus(tmp_path, dict.fromkeys(("/one", "/two"), f"127.0.0.1:{port}")) as url:
        stats = source(url, {"one", "two"})
        first = await sampled(stats, lambda sample: len(sample.envoys) == 2)
        assert first.envoys["one"].services == {"shop.web": Counters(requests=7, bytes=42)}
        assert first.missing == {}
        assert time.time() - first.taken_at < PATIENCE_SECONDS

        exporter.requests["two"] = 6
        second = await sampled(
            stats, lambda s: "two" in s.envoys and s.envoys["two"].services["shop.web"].requests == 6
        )
        window = Window(first, second, frozenset({"one", "two"}))
        assert window.judge("shop.web", IdleBy.REQUESTS, window.doubt()).usage is Usage.TRAFFIC

        exporter.requests["two"] = None
        partial = await sampled(stats, lambda sample: "two" in sample.missing)
        assert "Prometheus" in partial.missing["two"]
        window = Window(second, partial, frozenset({"one", "two"}))
        assert window.judge("shop.web", IdleBy.REQUESTS, window.doubt()).usage is Usage.UNKNOWN

        exporter.requests["two"] = 6
        await sampled(stats, lambda sample: len(sample.envoys) == 2)

        exporter.requests["one"] = float("nan")
        broken = await sampled(stats, lambda sample: bool(sample.missing))
        assert "not a number" in broken.missing["one"]
        await stats.close()


@pytest.mark.prometheus
async def test_a_clock_that_disagrees_makes_everything_unknown(tmp_path: Path) -> None:
    exporter = Exporter()
    app = web.Application()
    app.router.add_get("/{node}", exporter.answer)
    async with served(app) as port, prometheus(tmp_path, {"/one": f"127.0.0.1:{port}"}) as url:
        right = source(url, {"one"})
        await sampled(right, lambda sample: len(sample.envoys) == 1)
        wrong = source(url, {"one"}, ahead=-60.0)
        sample = await wrong.sample()
        assert sample.envoys == {}
        assert "60.0 s ahead of ours" in sample.missing["one"]
        await right.close()
        await wrong.close()


async def test_a_prometheus_that_is_down_makes_everything_unknown() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    stats = source(f"http://127.0.0.1:{port}", {"one"})
    sample = await stats.sample()
    assert sample.missing == {"one": "Prometheus: it cannot be reached"}
    await stats.close()


def answers(body: object, status: int = 200, everything: bool = False) -> web.Application:
    """A server that answers every query with this, but the one for the time, unless it means `everything`."""

    async def answer(request: web.Request) -> web.Response:
        if request.query["query"] == "time()" and not everything:
            body_now = {"status": "success", "data": {"resultType": "scalar", "result": [0, str(time.time())]}}
            return web.Response(text=json.dumps(body_now), status=status)
        return web.Response(text=json.dumps(body), status=status)

    app = web.Application()
    app.router.add_get("/api/v1/query", answer)
    return app


@pytest.mark.parametrize(
    ("body", "status", "why"),
    [
        ({"status": "success", "data": {"result": []}, "warnings": ["a store is away"]}, 200, "a store is away"),
        ({"status": "error", "error": "overloaded"}, 503, "503"),
        ({"status": "success"}, 200, "cannot be understood"),
        ({"status": "success", "data": {"result": []}}, 200, "no recent scrape"),
    ],
    ids=["warnings", "error", "nonsense", "empty"],
)
async def test_an_answer_that_proves_nothing_is_unknown(body: object, status: int, why: str) -> None:
    async with served(answers(body, status)) as port:
        stats = source(f"http://127.0.0.1:{port}", {"one"})
        sample = await stats.sample()
        assert sample.envoys == {}
        assert why in sample.missing["one"]
        await stats.close()


UPTIME = {"__name__": "envoy_server_uptime", "zenvoy_node": "one"}


@pytest.mark.parametrize(
    "result",
    [[], [0], {}, None, "text", [{"metric": {}, "value": [0, "1"]}]],
    ids=["nothing", "half", "mapping", "null", "text", "vector"],
)
async def test_a_time_that_is_none_is_unknown(result: object) -> None:
    body = {"status": "success", "data": {"result": result}}
    async with served(answers(body, everything=True)) as port:
        stats = source(f"http://127.0.0.1:{port}", {"one"})
        assert "cannot be understood" in (await stats.sample()).missing["one"]
        await stats.close()


@pytest.mark.parametrize(
    "row",
    [
        {"metric": UPTIME, "value": []},
        {"metric": UPTIME},
        {"metric": None, "value": [0, "1"]},
        {"metric": {**UPTIME, "__name__": "other", "envoy_cluster_name": "web"}, "value": [0, "1"]},
        {
            "metric": {**UPTIME, "__name__": "envoy_cluster_upstream_rq_total", "envoy_cluster_name": "web"},
            "value": [0, "+Inf"],
        },
    ],
    ids=["no value", "no values", "no labels", "unknown name", "infinite"],
)
async def test_a_row_that_is_none_is_unknown(row: object) -> None:
    async with served(answers({"status": "success", "data": {"result": [row]}})) as port:
        stats = source(f"http://127.0.0.1:{port}", {"one"})
        assert "cannot be understood" in (await stats.sample()).missing["one"]
        await stats.close()


async def test_who_is_expected_is_asked_where_envoys_come_and_go() -> None:
    threads: set[int] = set()

    def expected() -> frozenset[str]:
        threads.add(threading.get_ident())
        return frozenset({"one"})

    stats = PrometheusStats(PrometheusSettings("http://127.0.0.1:9", 1.0), time.time, expected, str)
    await stats.sample()
    assert threads == {threading.get_ident()}
    await stats.close()


async def test_a_prometheus_that_is_slow_is_unknown() -> None:
    async def hang(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    app = web.Application()
    app.router.add_get("/api/v1/query", hang)
    async with served(app) as port:
        stats = source(f"http://127.0.0.1:{port}", {"one"}, timeout=0.3)
        assert (await stats.sample()).missing == {"one": "Prometheus: it did not answer in time"}
        await stats.close()


async def test_a_large_answer_that_takes_long_does_not_make_the_scrape_old() -> None:
    now = 1_000_000.0

    async def answer(request: web.Request) -> web.Response:
        nonlocal now
        query, began = request.query["query"], now
        if query == "time()":
            return web.json_response({"status": "success", "data": {"result": [0, str(now)]}})
        if not query.startswith("timestamp"):
            now += 10 * SCRAPE_SECONDS
        row = {"metric": UPTIME, "value": [began, str(began - SCRAPE_SECONDS)]}
        return web.json_response({"status": "success", "data": {"result": [row]}})

    app = web.Application()
    app.router.add_get("/api/v1/query", answer)
    async with served(app) as port:
        settings = PrometheusSettings(f"http://127.0.0.1:{port}", SCRAPE_SECONDS)
        stats = PrometheusStats(settings, lambda: now, lambda: frozenset({"one"}), str)
        sample = await stats.sample()
        await stats.close()
    assert sample.missing == {}
    assert sample.taken_at == 1_000_000.0 - SCRAPE_SECONDS


async def test_headers_and_a_rotated_token_are_sent(tmp_path: Path) -> None:
    seen: list[tuple[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append((request.headers["X-Scope-OrgID"], request.headers["Authorization"]))
        return web.Response(status=500)

    app = web.Application()
    app.router.add_get("/api/v1/query", answer)
    token = tmp_path / "token"
    async with served(app) as port:
        settings = PrometheusSettings(
            f"http://127.0.0.1:{port}", 1.0, headers={"X-Scope-OrgID": "shop"}, bearer_token_file=str(token)
        )
        stats = PrometheusStats(settings, time.time, lambda: frozenset({"one"}), str)
        for secret in ("first", "second"):
            token.write_text(secret + "\n")
            await stats.sample()
        token.unlink()
        assert "No such file" in (await stats.sample()).missing["one"]
        await stats.close()
    assert seen == [("shop", "Bearer first"), ("shop", "Bearer second")]
