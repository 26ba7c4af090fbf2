"""The errors of calls."""

from __future__ import annotations

import pytest
from aiohttp import web
from kubernetes.aio.client import Configuration

from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.client.errors import ApiError
from tests.servers import answering_gets


async def test_call_error_of_a_proxy_has_its_message() -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"type": "error", "code": "NotFound", "message": "no such cluster"}, status=404)

    async with answering_gets(answer) as url:
        api = Api(Configuration(host=url), "shop")
        with pytest.raises(ApiError) as raised:
            await api.get("/version")
        await api.close()
    assert (raised.value.status, raised.value.message) == (404, "no such cluster")
