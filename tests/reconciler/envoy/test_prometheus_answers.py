"""Failures of Prometheus, and answers from which usage cannot be determined."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from aiohttp import web

from reconciler.envoy.prometheus.settings import PrometheusSettings
from reconciler.envoy.prometheus.stats import PrometheusStats
from tests.ports import free_port
from tests.reconciler.envoy.prometheus_parts import SCRAPE_SECONDS, rows, served, source


async def test_prometheus_down_makes_sample_unknown() -> None:
    stats = source(f"http://127.0.0.1:{free_port()}", {"one"})
    sample = await stats.sample()
    assert sample.missing == {"one": "Prometheus: it cannot be reached"}
    await stats.close()


def answers(body: object, status: int = 200, everything: bool = False) -> web.Application:
    """Return a server that gives this answer to each query; to that for the time only if `everything`."""

    async def answer(request: web.Request) -> web.Response:
        if request.query["query"] == "time()" and not everything:
            body_now = {"status": "success", "data": {"resultType": "scalar", "result": [0, str(time.time())]}}
            return web.Response(text=json.dumps(body_now), status=status)
        return web.Response(text=json.dumps(body), status=status)

    app = web.Application()
    app.router.add_get("/api/v1/query", answer)
    return app


LONG = rows("one", time.time(), 60.0, services=100)
"""Rows that are longer than any tail of an answer."""


@pytest.mark.parametrize(
    ("body", "status", "why"),
    [
        ({"status": "success", "data": {"result": []}, "warnings": ["a store is away"]}, 200, "it has warnings"),
        ({"status": "success", "data": {"result": []}, "warnings": ["x" * 20_000]}, 200, "it has warnings"),
        ({"status": "success", "warnings": ["early"], "data": {"result": LONG}}, 200, "it has warnings"),
        ({"status": "success", "isPartial": True, "data": {"result": LONG}}, 200, "its answer is partial"),
        ({"status": "error", "error": "overloaded"}, 503, "503"),
        ({"status": "success"}, 200, "cannot be parsed"),
        ({"status": "success", "data": {"result": []}}, 200, "no recent scrape"),
    ],
    ids=["warnings", "long warnings", "warnings before all", "partial", "error", "nonsense", "empty"],
)
async def test_prometheus_inconclusive_answer_is_unknown(body: object, status: int, why: str) -> None:
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
async def test_prometheus_malformed_time_is_unknown(result: object) -> None:
    body = {"status": "success", "data": {"result": result}}
    async with served(answers(body, everything=True)) as port:
        stats = source(f"http://127.0.0.1:{port}", {"one"})
        assert "cannot be parsed" in (await stats.sample()).missing["one"]
        await stats.close()


@pytest.mark.parametrize(
    "row",
    [
        {"metric": UPTIME, "value": []},
        {"metric": UPTIME},
        {"metric": None, "value": [0, "1"]},
        {"metric": UPTIME | {"__name__": "other", "envoy_cluster_name": "web"}, "value": [0, "1"]},
    ],
    ids=["no value", "no values", "no labels", "unknown name"],
)
async def test_prometheus_malformed_row_is_unknown(row: object) -> None:
    async with served(answers({"status": "success", "data": {"result": [row]}})) as port:
        stats = source(f"http://127.0.0.1:{port}", {"one"})
        assert "cannot be parsed" in (await stats.sample()).missing["one"]
        await stats.close()


@pytest.mark.parametrize("number", ["NaN", "+Inf", "-Inf"])
@pytest.mark.parametrize("row", [0, -2, -1], ids=["figure", "uptime", "scrape"])
async def test_prometheus_value_not_a_number_is_unknown(row: int, number: str) -> None:
    found = rows("one", time.time(), 60.0)
    found[row]["value"] = [time.time(), number]
    async with served(answers({"status": "success", "data": {"result": found}})) as port:
        stats = source(f"http://127.0.0.1:{port}", {"one"})
        assert "of it, and that is not a number" in (await stats.sample()).missing["one"]
        await stats.close()


async def test_prometheus_expected_is_called_on_the_event_loop() -> None:
    threads: set[int] = set()

    def expected() -> frozenset[str]:
        threads.add(threading.get_ident())
        return frozenset({"one"})

    stats = PrometheusStats(PrometheusSettings("http://127.0.0.1:9", 1.0), time.time, expected)
    await stats.sample()
    assert threads == {threading.get_ident()}
    await stats.close()


async def test_prometheus_slow_is_unknown() -> None:
    async def hang(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    app = web.Application()
    app.router.add_get("/api/v1/query", hang)
    async with served(app) as port:
        stats = source(f"http://127.0.0.1:{port}", {"one"}, timeout=0.3)
        assert (await stats.sample()).missing == {"one": "Prometheus: it did not answer in time"}
        await stats.close()


Evaluate = Callable[[str], list[dict[str, object]]]


def evaluates(now: Callable[[], float], vector: Evaluate, asked: list[str]) -> web.Application:
    """Return a Prometheus with this clock, which answers other queries with these rows."""

    async def answer(request: web.Request) -> web.Response:
        query = request.query["query"]
        asked.append(query)
        result = [now(), str(now())] if query == "time()" else vector(query)
        return web.json_response({"status": "success", "data": {"result": result}})

    app = web.Application()
    app.router.add_get("/api/v1/query", answer)
    return app


async def test_prometheus_slow_large_answer_keeps_scrapes_fresh() -> None:
    now = 1_000_000.0

    def slowly(_: str) -> list[dict[str, object]]:
        nonlocal now
        scraped = now - SCRAPE_SECONDS
        now += 10 * SCRAPE_SECONDS
        return rows("one", scraped, 60.0)

    async with served(evaluates(lambda: now, slowly, [])) as port:
        settings = PrometheusSettings(f"http://127.0.0.1:{port}", SCRAPE_SECONDS)
        stats = PrometheusStats(settings, lambda: now, lambda: frozenset({"one"}))
        sample = await stats.sample()
        await stats.close()
    assert sample.missing == {}
    assert sample.taken_at == 1_000_000.0 - SCRAPE_SECONDS


async def test_prometheus_scrape_between_queries_is_not_a_restart() -> None:
    """Scrape an Envoy that started at 1,000,000 again before each query."""
    now = 1_000_000.0

    def scraped(query: str) -> list[dict[str, object]]:
        nonlocal now
        now += SCRAPE_SECONDS
        found = rows("one", now, now - 1_000_000.0)
        return found if "timestamp(" in query else found[:-1]

    async with served(evaluates(lambda: now, scraped, [])) as port:
        settings = PrometheusSettings(f"http://127.0.0.1:{port}", SCRAPE_SECONDS)
        stats = PrometheusStats(settings, lambda: now, lambda: frozenset({"one"}))
        readings = [(await stats.sample()).envoys["one"] for _ in range(3)]
        await stats.close()
    assert [reading.uptime for reading in readings] == [SCRAPE_SECONDS * number for number in (1, 2, 3)]
    assert {(reading.at or 0.0) - reading.uptime for reading in readings} == {1_000_000.0}


@pytest.mark.parametrize("services", [1, 1_000])
async def test_prometheus_many_services_need_no_more_queries(services: int) -> None:
    asked: list[str] = []
    vector: Evaluate = lambda _: rows("one", time.time(), 60.0, services)  # noqa: E731
    async with served(evaluates(time.time, vector, asked)) as port:
        stats = source(f"http://127.0.0.1:{port}", {"one"})
        assert len((await stats.sample()).envoys["one"].services) == services
        await stats.close()
    assert len(asked) == 2  # its clock, and everything else


async def test_prometheus_endless_answer_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that reads it ends too: the next sample sends a new query."""
    monkeypatch.setattr(PrometheusSettings, "seconds_max", 1.2)
    asked = 0

    async def trickle(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        response = web.StreamResponse()
        await response.prepare(request)
        with suppress(ConnectionError):
            while True:
                await response.write(b" ")
                await asyncio.sleep(0.02)
        return response

    app = web.Application()
    app.router.add_get("/api/v1/query", trickle)
    async with served(app) as port:
        stats = source(f"http://127.0.0.1:{port}", {"one"})
        for _ in range(2):
            sample = await stats.sample()
            assert sample.missing == {"one": "Prometheus: its answer is not complete after 1.2 s"}
            assert sample.source_failed
        assert asked == 2
        await stats.close()


async def test_prometheus_headers_and_rotated_token_are_sent(tmp_path: Path) -> None:
    seen: list[tuple[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append((request.headers["X-Scope-OrgID"], request.headers["Authorization"]))
        return web.Response(status=500)

    app = web.Application()
    app.router.add_get("/api/v1/query", answer)
    token, headers = tmp_path / "token", tmp_path / "headers"
    headers.write_text("X-Scope-OrgID: shop\n")
    async with served(app) as port:
        settings = PrometheusSettings(
            f"http://127.0.0.1:{port}", 1.0, headers_file=str(headers), bearer_token_file=str(token)
        )
        stats = PrometheusStats(settings, time.time, lambda: frozenset({"one"}))
        for secret in ("first", "second"):
            token.write_text(secret + "\n")
            await stats.sample()
        token.unlink()
        assert "No such file" in (await stats.sample()).missing["one"]
        await stats.close()
    assert seen == [("shop", "Bearer first"), ("shop", "Bearer second")]
