"""Samples from Envoy's admin port: parsed text, and Envoys that do not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest
from aiohttp import web

from reconciler.core.traffic import Counters, EnvoyReading
from reconciler.envoy.admin_stats import Admin, AdminStats, Parser, UnusableStatsError

TEXT = """\
cluster.echo.upstream_cx_active: 1
cluster.echo.upstream_cx_rx_bytes_total: 30
cluster.echo.upstream_cx_total: 2
cluster.echo.upstream_cx_tx_bytes_total: 12
cluster.echo.upstream_rq_active: 1
cluster.echo.upstream_rq_total: 7
cluster.shop~web.upstream_cx_total: 4
server.uptime: 99
"""


def reading(text: str) -> EnvoyReading:
    parser = Parser()
    for at in range(0, len(text), 7):
        parser.feed(text[at : at + 7].encode())
    return parser.reading()


def test_parser_adds_bytes_of_both_directions_by_service() -> None:
    read = reading(TEXT)
    assert read.uptime == 99
    assert read.services == {
        "echo": Counters(requests=7, connections=2, bytes=42, active_requests=1, active_connections=1),
        "shop.web": Counters(connections=4),
    }


@pytest.mark.parametrize("text", ["", "cluster.echo.upstream_rq_total: 7\n", "half a li", TEXT + "cluster.echo.upst"])
def test_parser_incomplete_text_raises_unusable(text: str) -> None:
    with pytest.raises(UnusableStatsError, match=r"uptime|cut short"):
        reading(text)


async def serve(path: Path, answer: web.StreamResponse | None) -> web.AppRunner:
    async def handle(request: web.Request) -> web.StreamResponse:
        assert request.query["usedonly"] == ""
        if answer is None:
            await asyncio.Event().wait()
        assert answer is not None
        return answer

    app = web.Application()
    app.router.add_get("/stats", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(path)).start()
    return runner


async def sampled(admins: Mapping[str, Admin]) -> tuple[set[str], dict[str, str], float]:
    source = AdminStats(lambda: admins, lambda: 1000.0, 1.0, range(1, 65536))
    try:
        sample = await source.sample()
    finally:
        await source.close()
    return set(sample.envoys), dict(sample.missing), sample.taken_at


async def test_sample_silent_envoy_is_missing_with_reason(tmp_path: Path) -> None:
    good, slow, broken = tmp_path / "good", tmp_path / "slow", tmp_path / "broken"
    runners = [
        await serve(good, web.Response(text=TEXT)),
        await serve(slow, None),
        await serve(broken, web.Response(status=503)),
    ]
    admins = {"good": good, "slow": slow, "broken": broken, "gone": tmp_path / "gone"}
    present, missing, taken_at = await sampled(admins)
    assert present == {"good"}
    assert taken_at == 1000.0
    assert set(missing) == {"slow", "broken", "gone"}
    assert "did not answer within 1 s" in missing["slow"]
    assert "503" in missing["broken"]
    for runner in runners:
        await runner.cleanup()


async def test_sample_remote_envoy_is_read_at_its_address(tmp_path: Path) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=TEXT)

    app = web.Application()
    app.router.add_get("/stats", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        host, port = runner.addresses[0]
        present, missing, _ = await sampled({"there": f"{host}:{port}", "silent": ""})
    finally:
        await runner.cleanup()
    assert present == {"there"}
    assert "--stats-address" in missing["silent"]
