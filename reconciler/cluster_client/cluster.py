"""One cluster as the CLI reaches it, and the ScaledServices in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconciler.cluster_client.errors import INSTALL, ClusterUnreachable, NoSuchService, translated_errors
from reconciler.kubernetes.client.api import MERGE_PATCH, Api, connect
from reconciler.kubernetes.client.errors import ApiError
from reconciler.kubernetes.client.informer import list_objects
from reconciler.kubernetes.types.objects import api_path, decoder, path
from reconciler.kubernetes.types.scaled_service import API_VERSION, PLURAL, ScaledService

SYSTEM = "zenvoy-system"
LEASE = "zenvoy"
_SCALED_SERVICE = decoder(ScaledService)


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """The options that select a cluster, and a namespace in it."""

    kubeconfig: Path | None = None
    context: str | None = None
    namespace: str | None = None
    everywhere: bool = False
    """True for all namespaces."""
    system: str = SYSTEM
    """The namespace of the controller."""
    controller: str | None = None
    """The controller's HTTP address; None: through the API server's port-forward."""


class ClusterClient:
    """Requests to one cluster; created by `open_cluster`."""

    def __init__(self, api: Api, options: ClusterOptions) -> None:
        self.api, self.options = api, options

    @property
    def namespace(self) -> str | None:
        """The namespace to read; None: all."""
        return None if self.options.everywhere else (self.options.namespace or self.api.namespace)

    def key(self, name: str) -> tuple[str, str]:
        """Return the namespace and the name in `NAME` or `NAMESPACE/NAME`."""
        namespace, slash, rest = name.partition("/")
        return (namespace, rest) if slash else (self.options.namespace or self.api.namespace, name)

    def path(self, name: str) -> str:
        """Return the API path of a ScaledService."""
        namespace, own = self.key(name)
        return path(API_VERSION, PLURAL, namespace, own)

    async def get(self, name: str) -> ScaledService:
        """Return one ScaledService. Raises `ClusterError`."""
        async with translated_errors(self.api.server):
            try:
                return _SCALED_SERVICE(await self.api.get(self.path(name)))
            except ApiError as error:
                if error.status != 404:
                    raise
        if not await self.is_installed():
            raise self._not_installed()
        namespace, own = self.key(name)
        raise NoSuchService(
            f"ScaledService {own!r} does not exist in namespace {namespace!r} of {self.api.server}; list all with "
            "`zenvoy status -A`, name a namespace with -n, or label its Service zenvoy.dev/enabled=true"
        )

    async def list_services(self) -> list[ScaledService]:
        """Return the ScaledServices, by namespace and name. Raises `ClusterUnreachable`, `ApiError`."""
        try:
            found = await self.list_objects(path(API_VERSION, PLURAL, self.namespace), _SCALED_SERVICE)
        except ApiError as error:
            if error.status != 404:
                raise
            raise self._not_installed() from None
        return sorted(found, key=lambda item: (item.metadata.namespace, item.metadata.name))

    async def list_objects(self, where: str, decode: Any, query: dict[str, str] | None = None) -> list[Any]:
        """Return all objects of a path, read page by page. Raises `ApiError` and `Unreachable`."""
        return [decode(raw) async for raw in list_objects(self.api, where, query)]

    async def patch(self, name: str, patch: Any) -> ScaledService:
        """Apply a merge patch to a ScaledService and return the result. Raises `ClusterError`."""
        async with translated_errors(self.api.server):
            return _SCALED_SERVICE(await self.api.patch(self.path(name), patch, MERGE_PATCH))

    async def is_installed(self) -> bool:
        """Return whether the cluster serves ScaledServices. Raises `ClusterError`."""
        async with translated_errors(self.api.server):
            try:
                await self.api.get(api_path(API_VERSION))
            except ApiError as error:
                if error.status != 404:
                    raise
                return False
        return True

    def _not_installed(self) -> ClusterUnreachable:
        return ClusterUnreachable(
            f"zenvoy is not installed in the cluster {self.api.server} (no {API_VERSION}); {INSTALL} with --context"
        )


@asynccontextmanager
async def open_cluster(options: ClusterOptions) -> AsyncIterator[ClusterClient]:
    """Connect to a cluster until the end of the block. Raises `ClusterError`, also from within the block."""
    async with translated_errors():
        api = await connect(options.kubeconfig, options.context)
    try:
        async with translated_errors(api.server):
            yield ClusterClient(api, options)
    finally:
        await api.close()
        await asyncio.sleep(0)  # aiohttp closes TLS connections on the next turn of the loop
