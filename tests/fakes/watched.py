"""A fake API server in memory with lists and watches of several kinds, in addition to `objects.py`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from reconciler.kubernetes.client.errors import ApiError
from tests.fakes.objects import Objects

APPS = {
    "resources": [
        {"name": "deployments", "kind": "Deployment", "namespaced": True},
        {"name": "deployments/scale", "kind": "Scale", "namespaced": True},
        {"name": "daemonsets", "kind": "DaemonSet", "namespaced": True},
    ]
}


class Watched(Objects):
    """Collections by path. A collection exists after a first object or `exists`. Selectors select everything."""

    def __init__(self) -> None:
        super().__init__()
        self._collections: dict[str, dict[str, Any]] = {}
        self._queues: dict[str, list[asyncio.Queue[bytes]]] = {}
        self.documents: dict[str, Any] = {"/apis/apps/v1": APPS, "/version": {}}

    def exists(self, *collections: str) -> None:
        for collection in collections:
            self._collections.setdefault(collection, {})

    def say(self, collection: str, namespace: str, name: str, body: Mapping[str, Any] | None) -> None:
        """Replace an object, or delete it."""
        self.exists(collection)
        kept, key = self._collections[collection], f"{namespace}/{name}"
        self._version += 1
        if body is None:
            change, item = "DELETED", kept.pop(key)
        else:
            change, item = ("MODIFIED" if key in kept else "ADDED"), dict(body)
            kept[key] = item
        meta = {**item.get("metadata", {}), "name": name, "namespace": namespace}
        item["metadata"] = {"uid": f"uid-of-{name}", **meta, "resourceVersion": str(self._version)}
        line = json.dumps({"type": change, "object": item}).encode()
        for queue in self._queues.get(collection, ()):
            queue.put_nowait(line)

    async def get(self, path: str, query: Mapping[str, str] | None = None, timeout: float = 10.0) -> bytes:
        await asyncio.sleep(0)
        if path in self.refused:
            raise self.refused[path]
        if path in self.documents:
            return json.dumps(self.documents[path]).encode()
        if path in self._collections:
            items = list(self._collections[path].values())
            return json.dumps({"metadata": {"resourceVersion": str(self._version)}, "items": items}).encode()
        if path in self.kept:
            return await super().get(path, query)
        raise ApiError(404, "NotFound", "the server could not find the requested resource")

    @asynccontextmanager
    async def lines(self, path: str, query: Mapping[str, str], timeout: float) -> AsyncIterator[AsyncIterator[bytes]]:
        if path in self.refused:
            raise self.refused[path]
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        self._queues.setdefault(path, []).append(queue)
        try:
            yield _all_of(queue)
        finally:
            self._queues[path].remove(queue)


async def _all_of(queue: asyncio.Queue[bytes]) -> AsyncIterator[bytes]:
    while True:
        yield await queue.get()
