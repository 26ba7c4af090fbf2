"""HTTP over TCP: read-only views, also of services with a slash in the name, and no commands."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from typing import Any

import pytest

from reconciler.server.http.server import Http
from tests.fakes.operations import FakeOperations
from tests.ports import free_port


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async def nothing(*_: str) -> Any:
        return b"", "text/plain"

    http, port = Http(FakeOperations("shop/web", "shop/explain"), nothing, nothing), free_port()
    await http.serve_readings("127.0.0.1", port)
    yield f"http://127.0.0.1:{port}"
    await http.close()


async def got(url: str, method: str = "GET") -> tuple[int, Any]:
    def fetch() -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=60) as response:
                return response.status, json.loads(response.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    return await asyncio.to_thread(fetch)


async def test_http_service_name_may_contain_a_slash(url: str) -> None:
    for path in ("shop/web", "shop%2Fweb"):
        assert await got(f"{url}/v1/services/{path}") == (200, {"name": "shop/web"})
        assert await got(f"{url}/v1/services/{path}/explain") == (200, {"service": {"name": "shop/web"}})


async def test_http_service_may_be_named_explain(url: str) -> None:
    assert await got(f"{url}/v1/services/shop/explain") == (200, {"name": "shop/explain"})
    assert await got(f"{url}/v1/services/shop/explain/explain") == (200, {"service": {"name": "shop/explain"}})


async def test_http_world_and_services_are_returned(url: str) -> None:
    assert await got(f"{url}/v1/overview") == (200, {"services": 2})
    assert (await got(f"{url}/v1/services"))[1]["services"] == [{"name": "shop/web"}, {"name": "shop/explain"}]


async def test_http_unknown_service_returns_404(url: str) -> None:
    status, text = await got(f"{url}/v1/services/shop/db/explain")
    assert status == 404 and "there is no service 'shop/db'" in json.loads(text)["error"]


async def test_http_tcp_port_has_no_commands(url: str) -> None:
    assert (await got(f"{url}/v1/services/shop/web/sleep", "POST"))[0] == 405
