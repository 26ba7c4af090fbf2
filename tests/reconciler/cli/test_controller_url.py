"""Live data from the URL of `--controller`, with a real HTTP server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web

from reconciler.cluster_client.cluster import ClusterClient
from reconciler.cluster_client.context_options import ContextOptions
from reconciler.cluster_client.controllers import ControllerSilent, fetch_live
from tests.ports import free_port
from tests.reconciler.envoy.prometheus_parts import served


async def overview(_: web.Request) -> web.Response:
    return web.json_response({"leader": True})


def cluster(port: int) -> ClusterClient:
    no_api: Any = None
    return ClusterClient(no_api, ContextOptions(controller=f"http://127.0.0.1:{port}/"))


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense\r\n\r\n",
        b'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"lead',
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 500 Error\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"",
    ],
)
async def test_broken_answer_of_controller_is_an_error(answer: bytes) -> None:
    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(respond, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ControllerSilent, match=f"http://127.0.0.1:{port}"):
            await fetch_live(cluster(port), "/v1/overview")


async def test_controller_here_is_never_asked_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    app = web.Application()
    app.router.add_get("/v1/overview", overview)
    async with served(app) as port:
        assert await fetch_live(cluster(port), "/v1/overview") == {"leader": True}
