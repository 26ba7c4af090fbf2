"""Connections to Prometheus: proxies of the environment, and authorities of clusters."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from urllib3.util.ssl_ import create_urllib3_context

from reconciler.envoy.admin_stats import UnusableStatsError
from reconciler.envoy.prometheus import client
from reconciler.envoy.prometheus.settings import PrometheusSettings
from tests.certificates import without_key_identifiers
from tests.ports import free_port

RESULT: list[Any] = [0, "1"]


def prometheus() -> web.Application:
    async def answer(request: web.Request) -> web.Response:
        data = {"resultType": "scalar", "result": RESULT}
        return web.json_response({"status": "success", "data": data})

    app = web.Application()
    app.router.add_get("/api/v1/query", answer)
    return app


async def listening(context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    runner = web.AppRunner(prometheus(), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async for found in listening():
        yield found


async def asked(url: str, ca_file: str | None = None) -> Any:
    def ask() -> Any:
        made = client.Client(PrometheusSettings(url, 15.0, ca_file=ca_file))
        try:
            return made.query("time()")
        finally:
            made.close()

    return await asyncio.to_thread(ask)


async def test_prometheus_here_is_never_asked_through_a_proxy(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("NO_PROXY", "10.96.0.0/12")
    assert await asked(f"http://127.0.0.1:{port}") == RESULT


async def test_prometheus_elsewhere_is_asked_through_the_proxy(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
    assert await asked("http://prometheus.example:9090") == RESULT


async def test_prometheus_authority_without_key_identifier_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python 3.13 sets the flag by default."""

    def strict() -> ssl.SSLContext:
        context = create_urllib3_context()
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(client, "create_urllib3_context", strict)
    authority, pair = without_key_identifiers(tmp_path)
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(pair)
    async for port in listening(own):
        assert await asked(f"https://127.0.0.1:{port}", str(authority)) == RESULT
        with pytest.raises(UnusableStatsError, match="cannot be reached"):
            await asked(f"https://127.0.0.1:{port}")
