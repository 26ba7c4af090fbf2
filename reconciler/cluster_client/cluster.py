"""One cluster as the CLI reaches it, its errors for the user, and the ScaledServices in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec

from reconciler.cluster_client.context_options import ContextOptions
from reconciler.kubernetes.client import errors
from reconciler.kubernetes.client.api import MERGE_PATCH, Api, connect
from reconciler.kubernetes.client.informer import list_objects
from reconciler.kubernetes.types.objects import InvalidName, api_path, decoder, path
from reconciler.kubernetes.types.scaled_service import API_VERSION, PLURAL, ScaledService

LEASE = "zenvoy"
_SCALED_SERVICE = decoder(ScaledService)
_T = TypeVar("_T")
INSTALL = "install it there (helm install zenvoy deploy/chart -n zenvoy-system --create-namespace), or name another"


class ClusterError(Exception):
    """An error with a message for the user."""


class ClusterUnreachable(ClusterError):
    """There is no cluster, it does not answer, or zenvoy is not installed in it."""


class NoSuchService(ClusterError):
    """The ScaledService does not exist."""


class ClusterClient:
    """Requests to one cluster; created by `open_cluster`, which translates their errors to `ClusterError`."""

    def __init__(self, api: Api, options: ContextOptions) -> None:
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
        """Return one ScaledService. Raises `ClusterError`, `ApiError` and `Unreachable`."""
        if (found := await self.api.find(self.path(name))) is not None:
            return _SCALED_SERVICE(found)
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
        except errors.ApiError as error:
            if error.status != errors.NOT_FOUND:
                raise
            raise self._not_installed() from None
        return sorted(found, key=lambda item: (item.metadata.namespace, item.metadata.name))

    async def list_served(self, where: str, decode: Callable[[msgspec.Raw], _T]) -> list[_T]:
        """Return all objects of a path; none if the cluster has no such kind. Raises `ApiError` and `Unreachable`."""
        with errors.ignoring(errors.NOT_FOUND):
            return await self.list_objects(where, decode)
        return []

    async def list_objects(
        self, where: str, decode: Callable[[msgspec.Raw], _T], query: dict[str, str] | None = None
    ) -> list[_T]:
        """Return all objects of a path, read page by page. Raises `ApiError` and `Unreachable`."""
        return [decode(raw) async for raw in list_objects(self.api, where, query)]

    async def patch(self, name: str, patch: Any) -> ScaledService:
        """Apply a merge patch to a ScaledService and return the result. Raises `ApiError` and `Unreachable`."""
        return _SCALED_SERVICE(await self.api.patch(self.path(name), patch, MERGE_PATCH))

    async def is_installed(self) -> bool:
        """Return whether the cluster serves ScaledServices. Raises `ApiError` and `Unreachable`."""
        return await self.api.find(api_path(API_VERSION)) is not None

    def _not_installed(self) -> ClusterUnreachable:
        return ClusterUnreachable(
            f"zenvoy is not installed in the cluster {self.api.server} (no {API_VERSION}); {INSTALL} with --context"
        )


@asynccontextmanager
async def translated_errors(server: str = "") -> AsyncIterator[None]:
    """Raise `ClusterError` in the place of errors of the API server and of the connection to it."""
    try:
        yield
    except errors.NoCluster as error:
        raise ClusterUnreachable(str(error)) from None
    except errors.Unreachable as error:
        raise ClusterUnreachable(
            f"the API server {server} does not answer ({error}); check the network, or name another context with "
            "--context"
        ) from None
    except errors.ApiError as error:
        if error.status == errors.UNAUTHORIZED:
            raise ClusterUnreachable(
                f"{server} does not accept your credentials ({error.message}); log in again, or name another context "
                "with --context"
            ) from None
        if error.status == errors.FORBIDDEN:
            raise ClusterError(
                f"{server} denied the request: {error.message}; ask an administrator for the permission"
            ) from None
        raise ClusterError(f"{server} refused the request: {error}") from None
    except InvalidName as error:
        raise NoSuchService(f"{error}; a Kubernetes name consists of a-z, 0-9, - and ., at most 253 of them") from None


@asynccontextmanager
async def open_cluster(options: ContextOptions) -> AsyncIterator[ClusterClient]:
    """Connect to a cluster until the end of the block. Raises `ClusterError`, also from within the block."""
    async with translated_errors():
        api = await connect(options.kubeconfig, options.context)
    try:
        async with translated_errors(api.server):
            yield ClusterClient(api, options)
    finally:
        await api.close()
        await asyncio.sleep(0)  # aiohttp closes TLS connections on the next turn of the loop
