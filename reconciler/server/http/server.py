"""HTTP by aiohttp: the control socket for the CLI, and /metrics, /healthz, /readyz.

Counterpart: `reconciler.ports.operations`. The control socket is a Unix socket in the state directory: only its owner
may command.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from aiohttp import web

from reconciler.core.text import error_text
from reconciler.ports.operations import Command, Operations, View
from reconciler.server.http.connections import BACKLOG, Connections, timed

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Scrape = Callable[[str], Awaitable[tuple[bytes, str]]]
"""From an `Accept` header to a body and its content type."""


class Http:
    """The HTTP server. `metrics` and `envoy` return the metrics of the reconciler and of Envoy for Prometheus."""

    def __init__(self, operations: Operations, metrics: Scrape, envoy: Callable[[], Awaitable[bytes]]) -> None:
        self._operations, self._metrics, self._envoy = operations, metrics, envoy
        self._runners: list[web.AppRunner] = []
        self._servers: list[asyncio.Server] = []
        self._connections = Connections()

    async def serve_control(self, path: Path) -> None:
        """Serve everything at a Unix socket that only this user may use.

        Opens the directory first: the path of a Unix socket has at most 107 bytes, and this one may be longer.
        """
        path.unlink(missing_ok=True)
        command = web.post("/v1/services/{name:.*}/{command}", self._answer_command)
        factory = await self._factory([*self._probes(), *self._readings(), command])
        directory, before = os.open(path.parent, os.O_PATH), os.umask(0o177)
        try:
            at = f"/proc/self/fd/{directory}/{path.name}"
            loop = asyncio.get_running_loop()
            self._servers.append(await loop.create_unix_server(factory, at, backlog=BACKLOG))
        finally:
            os.umask(before)
            os.close(directory)

    async def serve_probes(self, host: str, port: int) -> None:
        """Serve metrics and health at a public TCP port. Raises `OSError` if it is in use."""
        await self._serve_tcp(host, port, self._probes())

    async def serve_readings(self, host: str, port: int) -> None:
        """Serve metrics, health and read-only views at a loopback TCP port. Raises `OSError` if it is in use."""
        await self._serve_tcp(host, port, [*self._probes(), *self._readings()])

    async def _serve_tcp(self, host: str, port: int, routes: list[web.RouteDef]) -> None:
        factory, loop = await self._factory(routes), asyncio.get_running_loop()
        self._servers.append(await loop.create_server(factory, host, port, backlog=BACKLOG))

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        for runner in self._runners:
            await runner.cleanup()

    async def _factory(self, routes: list[web.RouteDef]) -> Callable[[], asyncio.Protocol]:
        """Return the factory for connections whose requests have these routes."""
        app = web.Application(middlewares=[timed])
        app.add_routes(routes)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await runner.setup()
        self._runners.append(runner)
        assert runner.server is not None
        return self._connections.guard(runner.server)

    def _probes(self) -> list[web.RouteDef]:
        return [
            web.get("/metrics", self._answer_metrics),
            web.get("/envoy/metrics", self._answer_envoy),
            web.get("/healthz", self._answer_health),
            web.get("/readyz", self._answer_ready),
        ]

    def _readings(self) -> list[web.RouteDef]:
        """Return the read-only routes; the name of a service may contain a slash."""
        return [
            web.get("/v1/overview", self._answer_overview),
            web.get("/v1/services", self._answer_services),
            web.get("/v1/services/{name:.+}/explain", self._answer_explain),
            web.get("/v1/services/{name:.*}", self._answer_service),
        ]

    async def _answer_metrics(self, request: web.Request) -> web.Response:
        body, content_type = await self._metrics(",".join(request.headers.getall("Accept", [])))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _answer_envoy(self, _: web.Request) -> web.Response:
        """Return the metrics of Envoy, whose admin port must stay private: it can stop Envoy."""
        try:
            return web.Response(body=await self._envoy(), headers={"Content-Type": CONTENT_TYPE})
        except OSError as error:  # a TimeoutError is one
            return web.Response(text=f"Envoy does not answer: {error_text(error)}\n", status=503)

    async def _answer_health(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _answer_ready(self, _: web.Request) -> web.Response:
        reason = self._operations.unready()
        return web.Response(text=f"{reason or 'ok'}\n", status=503 if reason else 200)

    async def _answer_services(self, _: web.Request) -> web.Response:
        asked = self._operations
        answer = {"services": asked.services(), "envoys": asked.envoys(), "holders": asked.holders()}
        return web.json_response(answer | {"unready": asked.unready()})

    async def _answer_service(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        return _answer_known(name, lambda: self._operations.service(name))

    async def _answer_overview(self, _: web.Request) -> web.Response:
        return web.json_response(self._operations.overview())

    async def _answer_explain(self, request: web.Request) -> web.Response:
        """Explain a service; a service that is itself named `…/explain` is second choice."""
        name, asked = request.match_info["name"], self._operations
        return _answer_known(name, lambda: asked.explain(name), lambda: asked.service(f"{name}/explain"))

    async def _answer_command(self, request: web.Request) -> web.Response:
        name, word = request.match_info["name"], request.match_info["command"]
        if word not in set(Command):
            return web.json_response({"error": f"{word!r} is not a command"}, status=400)
        return _answer_known(name, lambda: self._operations.tell(name, Command(word)))


def _answer_known(name: str, *reads: Callable[[], View]) -> web.Response:
    """Answer with the first view of a service that is known."""
    for read in reads:
        with suppress(KeyError):
            return web.json_response(read())
    return web.json_response({"error": f"there is no service {name!r}"}, status=404)
