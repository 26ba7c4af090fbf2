"""A fake API server in memory: versions, conflicts, merge patches, and JSON patches of a scale.

It is an `Api` whose calls are answered from memory. The errors in `faults` are raised by the next calls.
"""

from __future__ import annotations

import asyncio
import copy
import json
import re
from collections import deque
from collections.abc import Mapping
from typing import Any

from reconciler.kubernetes.client.api import JSON, JSON_PATCH, MERGE_PATCH, Api
from reconciler.kubernetes.client.errors import ApiError
from reconciler.kubernetes.types.objects import decoder
from reconciler.kubernetes.types.scaled_service import ScaledService

_NAMED = re.compile(r"/namespaces/([^/]+)/[^/]+/([^/]+)(?:/scale)?$")
SERVICES = "/apis/zenvoy.dev/v1alpha1/namespaces/shop/scaledservices"


class Objects(Api):
    """Objects by path. `calls` has every call as (method, path, body)."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}
        self.calls: list[tuple[str, str, Any]] = []
        self.faults: deque[Exception] = deque()
        self.refused: dict[str, Exception] = {}
        """Error of every call to a path."""
        self.most_at_once = self._at_once = 0
        self._version = 100
        self._uids = 0

    def put(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Replace an object as another client."""
        kept = copy.deepcopy(dict(body))
        metadata = kept.setdefault("metadata", {})
        if named := _NAMED.search(path):
            metadata.update({"namespace": named[1], "name": named[2]} | metadata)
        if "uid" not in metadata:
            self._uids += 1
            metadata["uid"] = f"uid-{self._uids}"
        self._version += 1
        metadata["resourceVersion"] = str(self._version)
        self.kept[path] = kept
        return kept

    def scaled_service(self, name: str, **fields: Any) -> str:
        """Create a ScaledService `shop/name`; return its path."""
        metadata = {"name": name, "namespace": "shop", "generation": 1} | fields.pop("metadata", {})
        self.put(f"{SERVICES}/{name}", {"metadata": metadata, "spec": {}, **fields})
        return f"{SERVICES}/{name}"

    def deployment(self, name: str, replicas: int) -> str:
        """Create the scale of a Deployment `shop/name`; return its path."""
        kinds = [{"name": "deployments", "kind": "Deployment"}, {"name": "deployments/scale", "kind": "Scale"}]
        self.put("/apis/apps/v1", {"resources": [{"namespaced": True, **kind} for kind in kinds]})
        path = f"/apis/apps/v1/namespaces/shop/deployments/{name}/scale"
        self.put(path, {"spec": {"replicas": replicas} if replicas else {}})
        return path

    def items(self) -> dict[str, ScaledService]:
        """Return all ScaledServices, as in a current informer."""
        read = decoder(ScaledService)
        found = [read(json.dumps(kept).encode()) for path, kept in self.kept.items() if path.startswith(SERVICES)]
        return {item.metadata.key: item for item in found}

    def writes(self) -> list[tuple[str, str, Any]]:
        return [call for call in self.calls if call[0] != "GET"]

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        content_type: str = JSON,
        query: Mapping[str, str] | None = None,
        timeout: float = 10.0,
    ) -> bytes:
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        self.calls.append((method, path, copy.deepcopy(body)))
        try:
            await asyncio.sleep(0)
            if self.faults:
                raise self.faults.popleft()
            if path in self.refused:
                raise self.refused[path]
            return json.dumps(self._answer(method, path, body, content_type)).encode()
        finally:
            self._at_once -= 1

    def _answer(self, method: str, path: str, body: Any, content_type: str) -> Any:
        if method == "POST":
            name = body["metadata"]["name"]
            if f"{path}/{name}" in self.kept:
                raise ApiError(409, "AlreadyExists", f'"{name}" already exists')
            return self.put(f"{path}/{name}", body)
        of = path.removesuffix("/status")
        if of not in self.kept:
            inside = [kept for at, kept in self.kept.items() if at.rpartition("/")[0] == path]
            if method == "GET" and inside:
                return {"metadata": {"resourceVersion": str(self._version)}, "items": inside}
            raise ApiError(404, "NotFound", f"{path} not found")
        if method == "GET":
            return self.kept[of]
        assert method == "PATCH"
        patched = self.put(of, self._patched(self.kept[of], body, content_type, part="status" if of != path else None))
        if "deletionTimestamp" in patched["metadata"] and not patched["metadata"].get("finalizers"):
            del self.kept[of]
        return patched

    def _patched(self, kept: Any, body: Any, content_type: str, part: str | None) -> Any:
        if content_type == JSON_PATCH:
            return _json_patched(kept, body)
        assert content_type == MERGE_PATCH
        metadata = body.get("metadata", {})
        for field, what in (("resourceVersion", "the object has been modified"), ("uid", "Precondition failed: UID")):
            if metadata.get(field, kept["metadata"][field]) != kept["metadata"][field]:
                raise ApiError(409, "Conflict", what)
        if part:
            body = {part: body.get(part, {})}
        return _merged(kept, body)


def _merged(kept: Any, change: Any) -> Any:
    """Apply a merge patch (RFC 7386)."""
    if not isinstance(change, dict):
        return change
    merged = dict(kept) if isinstance(kept, dict) else {}
    for name, value in change.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merged(merged.get(name), value)
    return merged


def _json_patched(kept: Any, operations: list[dict[str, Any]]) -> Any:
    """Apply a JSON patch (RFC 6902), as far as the product uses it."""
    patched = copy.deepcopy(kept)
    for operation in operations:
        *way, last = operation["path"].strip("/").split("/")
        at = patched
        for step in way:
            at = at[step]
        if operation["op"] == "test":
            if at.get(last) != operation["value"]:
                raise ApiError(422, "Invalid", "the server rejected our request due to an error in our request")
        else:
            at[last] = operation["value"]
    return patched
