"""Live data from the URL of `--controller`, with a real HTTP server."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web

from reconciler.cluster_client.cluster import ClusterClient
from reconciler.cluster_client.context_options import ContextOptions
from reconciler.cluster_client.controllers import fetch_live
from tests.ports import free_port
from tests.reconciler.envoy.prometheus_parts import served


async def overview(_: web.Request) -> web.Response:
    return web.json_response({"leader": True})


async def test_controller_here_is_never_asked_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    app = web.Application()
    app.router.add_get("/v1/overview", overview)
    async with served(app) as port:
        no_api: Any = None
        cluster = ClusterClient(no_api, ContextOptions(controller=f"http://127.0.0.1:{port}/"))
        assert await fetch_live(cluster, "/v1/overview") == {"leader": True}
