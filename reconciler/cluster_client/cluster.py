"""One cluster as the CLI reaches it, and the ScaledServices in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from reconciler.cluster_client.errors import INSTALL, NoSuch, NotReached, told
from reconciler.kubernetes.client.api import MERGE_PATCH, Api, connect
from reconciler.kubernetes.client.errors import ApiError
from reconciler.kubernetes.types.objects import api_path, decoder, path
from reconciler.kubernetes.types.scaled_service import API_VERSION, PLURAL, ScaledService

SYSTEM = "zenvoy-system"
LEASE = "zenvoy"
PAGE = 500
LIST_TIMEOUT_SECONDS = 30.0
_T = TypeVar("_T")
_SCALED_SERVICE = decoder(ScaledService)


@dataclass(frozen=True, slots=True)
class Where:
    """What a person typed to say which cluster, and where in it."""

    kubeconfig: Path | None = None
    context: str | None = None
    namespace: str | None = None
    everywhere: bool = False
    """All namespaces."""
    system: str = SYSTEM
    """The namespace of the controller."""
    controller: str | None = None
    """The controller's HTTP address, where the API server's pod proxy is not to be used."""


class _Page(msgspec.Struct):
    metadata: dict[str, Any]
    items: list[msgspec.Raw] | None = None


_PAGE = msgspec.json.Decoder(_Page)


class Cluster:
    """Used within `reached`."""

    def __init__(self, api: Api, where: Where) -> None:
        self.api, self.where = api, where

    @property
    def namespace(self) -> str | None:
        """Where to look; None: everywhere."""
        return None if self.where.everywhere else (self.where.namespace or self.api.namespace)

    def key(self, name: str) -> tuple[str, str]:
        """Namespace and name of `NAME` or `NAMESPACE/NAME`."""
        namespace, slash, rest = name.partition("/")
        return (namespace, rest) if slash else (self.where.namespace or self.api.namespace, name)

    def path(self, name: str) -> str:
        """Of one ScaledService."""
        namespace, own = self.key(name)
        return path(API_VERSION, PLURAL, namespace, own)

    async def one(self, name: str) -> ScaledService:
        """Raises `NoSuch`, and what else is trouble."""
        async with told(self.api.server):
            try:
                return _SCALED_SERVICE(await self.api.get(self.path(name)))
            except ApiError as error:
                if error.status != 404:
                    raise
        if not await self._installed():
            raise self._not_installed()
        namespace, own = self.key(name)
        raise NoSuch(
            f"there is no ScaledService {own!r} in namespace {namespace!r} of {self.api.server}; "
            "name its namespace with -n, see all by `zenvoy status -A`, or label its Service zenvoy.dev/enabled=true"
        )

    async def all(self) -> list[ScaledService]:
        """By namespace and name."""
        try:
            found = await self.listed(path(API_VERSION, PLURAL, self.namespace), _SCALED_SERVICE)
        except ApiError as error:
            if error.status != 404:
                raise
            raise self._not_installed() from None
        return sorted(found, key=lambda item: (item.metadata.namespace, item.metadata.name))

    async def listed(self, where: str, decode: Any, query: dict[str, str] | None = None) -> list[Any]:
        """All objects there, page by page. Raises `ApiError` and `Unreachable`."""
        asked, found = {**(query or {}), "limit": str(PAGE)}, []
        while True:
            page = _PAGE.decode(await self.api.get(where, asked, LIST_TIMEOUT_SECONDS))
            found += [decode(raw) for raw in page.items or ()]
            if not (rest := page.metadata.get("continue")):
                return found
            asked["continue"] = rest

    async def patched(self, name: str, patch: Any) -> ScaledService:
        """The ScaledService after this merge patch."""
        async with told(self.api.server):
            return _SCALED_SERVICE(await self.api.patch(self.path(name), patch, MERGE_PATCH))

    async def _installed(self) -> bool:
        async with told(self.api.server):
            try:
                await self.api.get(api_path(API_VERSION))
            except ApiError as error:
                if error.status != 404:
                    raise
                return False
        return True

    def _not_installed(self) -> NotReached:
        return NotReached(
            f"the cluster {self.api.server} has no ScaledServices ({API_VERSION}): {INSTALL} with --context"
        )


@asynccontextmanager
async def reached(where: Where) -> AsyncIterator[Cluster]:
    """The cluster, until the end of the block. Raises `Trouble`, also from within."""
    async with told():
        api = await connect(where.kubeconfig, where.context)
    try:
        async with told(api.server):
            yield Cluster(api, where)
    finally:
        await api.close()
        await asyncio.sleep(0)  # aiohttp closes TLS connections on the next turn of the loop
