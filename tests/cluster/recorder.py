"""An HTTP proxy in front of the API server that records a program's requests in the terms of RBAC."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

Coming = Callable[[str, str, bytes], Awaitable[None]]
"""Method, path and body of a request, before the API server hears of it."""
VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_PASSED_ON = ("Content-Type", "Accept", "User-Agent", "Authorization")


@dataclass(frozen=True, slots=True, order=True)
class Asked:
    """One kind of request, as a rule of a Role would allow it."""

    group: str
    resource: str
    """With its subresource: `deployments/scale`."""
    verb: str


@dataclass
class Recorder:
    """The requests, and the refused ones."""

    url: str
    asked: set[Asked] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)
    coming: Coming | None = None
    """Called with each request before it is passed on."""

    def kubeconfig(self, of: Path) -> Path:
        """Return a kubeconfig with the same identity that leads through the recorder."""
        config = yaml.safe_load(of.read_text())
        config["clusters"][0]["cluster"] = {"server": self.url}
        path = of.with_suffix(f".recorded-{self.url.rpartition(':')[2]}")
        path.write_text(yaml.safe_dump(config))
        path.chmod(0o600)
        return path


@asynccontextmanager
async def recorder(kubeconfig: Path) -> AsyncIterator[Recorder]:
    """Run a recorder in front of the API server of that kubeconfig; clients authenticate themselves."""
    cluster = yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]
    timeout = aiohttp.ClientTimeout(total=None)
    connector = aiohttp.TCPConnector(ssl=_trust(cluster), limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as session:
        made = Recorder("")

        async def pass_on(request: web.Request) -> web.StreamResponse:
            headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
            url, body = f"{cluster['server']}{request.path_qs}", await request.read()
            if made.coming:
                await made.coming(request.method, request.path, body)
            async with session.request(request.method, url, headers=headers, data=body) as answer:
                _note(made, request, answer.status)
                return await _answer(request, answer)

        app = web.Application(client_max_size=1 << 24)
        app.router.add_route("*", "/{path:.*}", pass_on)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        made.url = "http://127.0.0.1:{}".format(*runner.addresses[0][1:])
        try:
            yield made
        finally:
            await runner.cleanup()


async def _answer(request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    made = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.headers.get("Content-Type", "")})
    try:
        await made.prepare(request)
        async for chunk in answer.content.iter_any():
            await made.write(chunk)
        await made.write_eof()
    except (ConnectionError, aiohttp.ClientError):
        pass  # who asked has gone: that is how a watch ends, and a call that took too long
    return made


def _note(recorder: Recorder, request: web.Request, status: int) -> None:
    found = asked(request.method, request.path, request.query)
    if found is None:
        return
    recorder.asked.add(found)
    if status in (401, 403):
        recorder.refused.append(f"{found.verb} {found.resource} in {request.path}")


def asked(method: str, path: str, query: Any) -> Asked | None:
    """Return the requested resource; None for requests such as discovery."""
    first, *parts = path.strip("/").split("/")
    if first == "apis":
        group, *parts = parts or [""]
    elif first == "api":
        group = ""
    else:
        return None
    parts = parts[1:]  # the version
    if parts[:1] == ["namespaces"] and len(parts) > 2:
        parts = parts[2:]
    if not parts:
        return None
    resource, name, *sub = [*parts, *[""] * (2 - len(parts))]
    if method == "GET":
        watches = query.get("watch", "") in ("1", "true")
        verb = "get" if name else "watch" if watches else "list"
    else:
        verb = VERBS[method]
    return Asked(group, "/".join([resource, *sub]), verb)


def _trust(cluster: dict[str, Any]) -> ssl.SSLContext:
    import base64

    data = cluster.get("certificate-authority-data")
    text = base64.b64decode(data).decode() if data else Path(cluster["certificate-authority"]).read_text()
    return ssl.create_default_context(cadata=text)
