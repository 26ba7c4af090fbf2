"""Lookups of kinds, with unexpected answers of an API server."""

from __future__ import annotations

import pytest
from aiohttp import web
from kubernetes.aio.client import Configuration

from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.client.discovery import Discovery, NoSuchKind
from tests.servers import answering_gets


async def test_discovery_version_without_a_name_is_listed_without_it() -> None:
    async def answer(request: web.Request) -> web.Response:
        if request.path != "/apis":
            return web.json_response({"reason": "NotFound"}, status=404)
        return web.json_response({"groups": [{"name": "example.com", "versions": [{"version": "v1"}, {}]}]})

    async with answering_gets(answer) as url:
        api = Api(Configuration(host=url), "shop")
        with pytest.raises(NoSuchKind, match=r"example\.com/v1, example\.com/"):
            await Discovery(api).find("example.com/v2", "Widget")
        await api.close()
