"""Named Secrets of one namespace, read by watches and written with optimistic concurrency.

Each Secret is watched by name, so that a Role can grant exactly these (`resourceNames`). None is created: the chart
renders them without data, so that neither helm nor `kubectl apply` changes the data.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterable, Mapping

import msgspec

from reconciler.kubernetes.client.api import MERGE_PATCH, Api
from reconciler.kubernetes.client.informer import Informer
from reconciler.kubernetes.types.objects import ObjectMeta, Struct, decoder, path


class Secret(Struct, frozen=True):
    """A Secret; its data is in base64 in JSON only."""

    metadata: ObjectMeta = ObjectMeta()
    data: dict[str, bytes] = msgspec.field(default_factory=dict)


class OwnSecrets:
    """The Secrets that zenvoy manages. `on_change` is called after each change."""

    def __init__(self, api: Api, namespace: str, names: Iterable[str], on_change: Callable[[], None]) -> None:
        self._api, self._namespace = api, namespace
        where, decode = path("v1", "secrets", namespace), decoder(Secret)
        self._informers = {
            name: Informer(
                api, where, decode, lambda _, __: on_change(), {"fieldSelector": f"metadata.name={name}"}, on_change
            )
            for name in names
        }

    @property
    def synced(self) -> bool:
        """True once the state of every Secret is known."""
        return all(informer.synced for informer in self._informers.values())

    def find(self, name: str) -> Secret | None:
        """Return a Secret as it was last seen; None if it does not exist."""
        return self._informers[name].items.get(f"{self._namespace}/{name}")

    async def write(self, name: str, found: Secret, data: Mapping[str, bytes], without: str = "") -> None:
        """Replace the data of a Secret that is still at the version that was found, and remove an annotation.

        Raises `ApiError` (409 if it has changed since) and `Unreachable`.
        """
        encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
        metadata: dict[str, object] = {"resourceVersion": found.metadata.resource_version}
        if without in found.metadata.annotations:
            metadata["annotations"] = {without: None}
        body = {"metadata": metadata, "data": {**dict.fromkeys(found.data), **encoded}}
        await self._api.patch(path("v1", "secrets", self._namespace, name), body, MERGE_PATCH)

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as watches:
            for informer in self._informers.values():
                watches.create_task(informer.run())
