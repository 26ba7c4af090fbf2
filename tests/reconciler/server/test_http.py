"""What is asked over TCP: readings, of services whose names hold a slash too, and no commands."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from typing import Any

import pytest

from reconciler.local.sockets import free_port
from reconciler.server.http import Http
from tests.fakes.operations import FakeOperations


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
            with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=10) as response:
                return response.status, json.loads(response.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    return await asyncio.to_thread(fetch)


async def test_a_name_may_hold_a_slash(url: str) -> None:
    for path in ("shop/web", "shop%2Fweb"):
        assert await got(f"{url}/v1/services/{path}") == (200, {"name": "shop/web"})
        assert await got(f"{url}/v1/services/{path}/explain") == (200, {"service": {"name": "shop/web"}})


async def test_a_service_may_be_called_explain(url: str) -> None:
    assert await got(f"{url}/v1/services/shop/explain") == (200, {"name": "shop/explain"})
    assert await got(f"{url}/v1/services/shop/explain/explain") == (200, {"service": {"name": "shop/explain"}})


async def test_the_world_and_all_services(url: str) -> None:
    assert await got(f"{url}/v1/world") == (200, {"services": 2})
    assert (await got(f"{url}/v1/services"))[1]["services"] == [{"name": "shop/web"}, {"name": "shop/explain"}]


async def test_no_such_service(url: str) -> None:
    status, text = await got(f"{url}/v1/services/shop/db/explain")
    assert status == 404 and "there is no service 'shop/db'" in json.loads(text)["error"]


async def test_nothing_is_commanded_over_tcp(url: str) -> None:
    assert (await got(f"{url}/v1/services/shop/web/sleep", "POST"))[0] == 405
