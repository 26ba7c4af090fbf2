"""A fake API server over real HTTP that can fail as real ones do. Counterpart: `kubernetes/client/api.py`.

It has one collection of objects with lists in pages, watches, and writes; each change has its own version. The
attributes of `Faults` cause faults until they are reset; those called `next_…` cause one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from kubernetes.aio.client import Configuration

from reconciler.kubernetes.client.api import Api

Object = dict[str, Any]


PRECONDITIONS = ("uid", "resourceVersion")


def merged(value: Any, change: Any) -> Any:
    """Return a value after a JSON merge patch."""
    if not isinstance(change, dict):
        return change
    found = dict(value) if isinstance(value, dict) else {}
    for key, part in change.items():
        found[key] = merged(found.get(key), part)
    return {key: part for key, part in found.items() if part is not None}


def is_selected(one: Object, request: web.Request) -> bool:
    """Return whether an object has the label, or the name, that a list asks for."""
    label, _, value = request.query.get("labelSelector", "").partition("=")
    name = request.query.get("fieldSelector", "").partition("metadata.name=")[2]
    labels = one["metadata"].get("labels", {})
    return (not name or one["metadata"]["name"] == name) and (not value or labels.get(label) == value)


def status(code: int, reason: str) -> Object:
    return {"kind": "Status", "code": code, "reason": reason, "message": f"made to fail: {reason}"}


@dataclass
class Faults:
    refuse: tuple[int, str] | None = None
    """Respond to every request with this status."""
    refuse_watches: tuple[int, str] | None = None
    silent: bool = False
    """Accept requests and never respond."""
    refuse_page: int | None = None
    """Number of the page of a list that fails once, from 0."""
    refuse_page_with: tuple[int, str] = (500, "InternalError")
    end_watches_at_once: bool = False
    hold_watches: bool = False
    """Keep watches open and report nothing. `ApiServer.resume` ends it."""
    page: int | None = None
    """Maximum number of objects per page, regardless of the request."""


@dataclass
class ApiServer:
    objects: dict[str, Object] = field(default_factory=dict)
    """Objects by namespace/name."""
    version: int = 100
    log: list[Object] = field(default_factory=list)
    forgotten: int = 0
    """Watches from before this version fail with 410 Gone."""
    faults: Faults = field(default_factory=Faults)
    lists: int = 0
    watches: list[str] = field(default_factory=list)
    """First version of each watch."""
    open: dict[web.StreamResponse, asyncio.Event] = field(default_factory=dict)

    def put(self, name: str, namespace: str = "shop", metadata: Object | None = None, **rest: Any) -> None:
        """Create or replace an object."""
        key = f"{namespace}/{name}"
        self.version += 1
        meta = {**(metadata or {}), "name": name, "namespace": namespace, "resourceVersion": str(self.version)}
        kind = "MODIFIED" if key in self.objects else "ADDED"
        self.objects[key] = {"metadata": meta, **rest}
        self._say(kind, self.objects[key])

    def delete(self, name: str, namespace: str = "shop") -> None:
        self.version += 1
        gone = self.objects.pop(f"{namespace}/{name}")
        self._say("DELETED", {**gone, "metadata": {**gone["metadata"], "resourceVersion": str(self.version)}})

    def bookmark(self) -> None:
        self.version += 1
        self._say("BOOKMARK", {"metadata": {"resourceVersion": str(self.version)}})

    def forget(self) -> None:
        """Compact the history: new watches can start only at the present version."""
        self.version += 1
        self.forgotten = self.version

    async def tell(self, line: bytes) -> None:
        """Write raw text to every open watch."""
        for stream in list(self.open):
            await stream.write(line)

    def resume(self) -> None:
        """Report what watches did not report while they were held."""
        self.faults.hold_watches = False
        for moved in self.open.values():
            moved.set()

    def cut(self) -> None:
        """Close the connections of all watches, perhaps in the middle of a line."""
        for stream in list(self.open):
            assert stream._req and stream._req.transport
            stream._req.transport.abort()

    def _say(self, kind: str, object_: Object) -> None:
        self.log.append({"type": kind, "object": object_, "version": self.version})
        for moved in self.open.values():
            moved.set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if self.faults.silent:
            await asyncio.Event().wait()
        if self.faults.refuse:
            return self._refusal(self.faults.refuse)
        if request.method != "GET":
            return await self._write(request)
        return await (self._watch(request) if "watch" in request.query else self._list(request))

    async def _write(self, request: web.Request) -> web.Response:
        """Create, merge, or delete an object of a namespace, with the preconditions in the body."""
        body = await request.json()
        namespace = request.path.partition("/namespaces/")[2].partition("/")[0]
        name = request.match_info.get("object") or body["metadata"]["name"]
        before = self.objects.get(f"{namespace}/{name}")
        if request.method == "POST":
            if before:
                return self._refusal((409, "AlreadyExists"))
            meta = {"uid": f"uid-{self.version}", **body["metadata"]}
            self.put(name, namespace, **{**body, "metadata": meta})
            return web.json_response(self.objects[f"{namespace}/{name}"])
        if not before:
            return self._refusal((404, "NotFound"))
        wanted = body.get("preconditions") or body.get("metadata") or {}
        if any(wanted.get(one, before["metadata"].get(one)) != before["metadata"].get(one) for one in PRECONDITIONS):
            return self._refusal((409, "Conflict"))
        if request.method == "DELETE":
            self.delete(name, namespace)
        elif (after := merged(before, body)) != before:
            self.put(name, namespace, **after)
        return web.json_response(before)

    def _refusal(self, why: tuple[int, str]) -> web.Response:
        return web.json_response(status(*why), status=why[0])

    async def _list(self, request: web.Request) -> web.Response:
        start = int(request.query.get("continue", "0"))
        limit = int(request.query.get("limit", str(len(self.objects) + 1)))
        if self.faults.page and "limit" in request.query:
            limit = min(limit, self.faults.page)
        if self.faults.refuse_page is not None and start == limit * self.faults.refuse_page:
            self.faults.refuse_page = None
            return self._refusal(self.faults.refuse_page_with)
        self.lists += start == 0
        keys = sorted(key for key, one in self.objects.items() if is_selected(one, request))
        meta = {"resourceVersion": str(self.version)}
        if start + limit < len(keys):
            meta["continue"] = str(start + limit)
        return web.json_response(
            {"metadata": meta, "items": [self.objects[key] for key in keys[start : start + limit]]}
        )

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        if self.faults.refuse_watches:
            return self._refusal(self.faults.refuse_watches)
        begin = int(request.query["resourceVersion"])
        self.watches.append(str(begin))
        stream = web.StreamResponse()
        await stream.prepare(request)
        if begin < self.forgotten:
            await stream.write(json.dumps({"type": "ERROR", "object": status(410, "Expired")}).encode() + b"\n")
            return stream
        if self.faults.end_watches_at_once:
            return stream
        await self._tell_from(begin, stream)
        return stream

    async def _tell_from(self, version: int, stream: web.StreamResponse) -> None:
        self.open[stream] = moved = asyncio.Event()
        try:
            while True:
                held = self.faults.hold_watches
                for change in [one for one in self.log if one["version"] > version and not held]:
                    await stream.write(json.dumps(change).encode() + b"\n")
                    version = change["version"]
                await moved.wait()
                moved.clear()
        finally:
            del self.open[stream]


@asynccontextmanager
async def serving(server: ApiServer, **others: ApiServer) -> AsyncIterator[Api]:
    """Run the server on a free port with a client; `others` are servers of further collections by name."""
    app = web.Application()
    for name, other in others.items():
        app.router.add_route("*", f"/{{before:.*}}/{name}", other.handle)
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    configuration = Configuration()
    configuration.host = f"http://127.0.0.1:{runner.addresses[0][1]}"
    api = Api(configuration, "default")
    try:
        yield api
    finally:
        await api.close()
        await runner.cleanup()
