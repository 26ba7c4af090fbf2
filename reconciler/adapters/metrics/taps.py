"""Where metrics listen in on other adapters: each passes on what it is told, and counts it or answers with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from reconciler.adapters.http import Http
from reconciler.adapters.xds_router import XdsRouter
from reconciler.ports.operations import Operations
from reconciler.ports.router import Report
from xds.server import ResourceAck

Scrape = Callable[[str], Awaitable[tuple[bytes, str]]]
"""From an `Accept` header to a body and its content type."""


class ScrapedHttp(Http):
    """Http whose /metrics speaks the format that the scraper asks for."""

    def __init__(self, operations: Operations, scrape: Scrape, envoy: Callable[[], Awaitable[str]]) -> None:
        super().__init__(operations, bytes, envoy)
        self._scrape = scrape

    async def _answer_metrics(self, request: web.Request) -> web.Response:
        body, content_type = await self._scrape(",".join(request.headers.getall("Accept", [])))
        return web.Response(body=body, headers={"Content-Type": content_type})


class CountedRouter(XdsRouter):
    """XdsRouter that tells `acked` of each acknowledgement, by the Envoy's node id."""

    def __init__(
        self,
        report: Report,
        now: Callable[[], float],
        rejected: Callable[[str, str], None],
        acked: Callable[[str], None],
    ) -> None:
        super().__init__(report, now, rejected)
        self._count_ack = acked

    def _changed(self, ack: ResourceAck) -> None:
        self._count_ack(ack.node)
        super()._changed(ack)
