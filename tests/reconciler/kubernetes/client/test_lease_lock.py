"""The calls of the leader election, with an API server that gives unexpected answers."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web
from kubernetes.aio.client import Configuration

from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.client.leader_election import LeaderElection, LeaseTiming
from reconciler.kubernetes.client.lease_lock import LeaderElector
from tests.reconciler.envoy.prometheus_parts import served

TIMING = LeaseTiming(duration=600.0, margin=1.0, every=0.02)


class LeaseServer:
    """An API server with one Lease. Once it is stored, each read is answered by the next of `answers`, if there is one.

    A renewal before that is refused, so that the candidate reads the Lease.
    """

    def __init__(self, *answers: bytes) -> None:
        self.lease: dict[str, Any] | None = None
        self.answers = [*answers]
        self.renewed = asyncio.Event()

    async def get(self, _: web.Request) -> web.Response:
        if self.lease is None:
            return web.json_response({"reason": "NotFound"}, status=404)
        if self.answers:
            return web.Response(body=self.answers.pop(0))
        return web.json_response(self.lease)

    async def post(self, request: web.Request) -> web.Response:
        return self._store(await request.json())

    async def put(self, request: web.Request) -> web.Response:
        if self.answers:
            return web.json_response({"reason": "Conflict"}, status=409)
        self.renewed.set()
        return self._store(await request.json())

    def _store(self, lease: dict[str, Any]) -> web.Response:
        self.lease = lease
        lease["metadata"]["resourceVersion"] = str(int(lease["metadata"].get("resourceVersion", 0)) + 1)
        return web.json_response(lease)


async def test_lease_that_cannot_be_decoded_does_not_end_the_term() -> None:
    server, roles = LeaseServer(b"", b"<html>", b"null", b"{}"), list[str]()
    app = web.Application()
    app.add_routes([web.get("/{p:.*}", server.get), web.post("/{p:.*}", server.post), web.put("/{p:.*}", server.put)])
    async with served(app) as port:
        api = Api(Configuration(host=f"http://127.0.0.1:{port}"), "shop")
        elector = LeaderElector(
            api,
            ("zenvoy-system", "zenvoy"),
            LeaderElection("me", TIMING),
            "10.0.0.1:18000",
            on_lead=lambda _: roles.append("leader"),
            on_follow=lambda _: roles.append("follower"),
        )
        electing = asyncio.create_task(elector.run())
        async with asyncio.timeout(60):
            await server.renewed.wait()
        assert (roles, elector.valid()) == (["follower", "leader"], True)
        electing.cancel()
        await asyncio.gather(electing, return_exceptions=True)
        await api.close()
