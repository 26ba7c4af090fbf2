"""A check for Ingresses and HTTPRoutes that lead to a Service directly, past the proxy that wakes it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import msgspec

from reconciler.cluster_client.cluster import ClusterClient
from reconciler.core.text import pluralize
from reconciler.doctor.findings import CheckResult, Finding, FindingCode
from reconciler.kubernetes.client.errors import ApiError
from reconciler.kubernetes.config.resolve import service_of
from reconciler.kubernetes.types.objects import ObjectMeta, decoder, path
from reconciler.kubernetes.types.scaled_service import ScaledService

REMEDY = (
    "lead it to zenvoy's Service zenvoy-proxy, and add its host to the hosts of {service} "
    "(docs/how-to/front-ends-and-networks.md)"
)
_T = TypeVar("_T")


class BackendService(msgspec.Struct):
    """The Service of an Ingress backend."""

    name: str = ""


class IngressBackend(msgspec.Struct):
    """A backend of an Ingress; one that is not a Service has none."""

    service: BackendService | None = None


class IngressPath(msgspec.Struct):
    """A path of an Ingress rule."""

    backend: IngressBackend = msgspec.field(default_factory=IngressBackend)


class IngressPaths(msgspec.Struct):
    """The paths of an Ingress rule."""

    paths: list[IngressPath] | None = None


class IngressRule(msgspec.Struct):
    """A rule of an Ingress."""

    http: IngressPaths | None = None


class IngressSpec(msgspec.Struct, rename="camel"):
    """The rules of an Ingress."""

    default_backend: IngressBackend | None = None
    rules: list[IngressRule] | None = None


class Ingress(msgspec.Struct):
    """An Ingress."""

    metadata: ObjectMeta
    spec: IngressSpec = msgspec.field(default_factory=IngressSpec)

    def services(self) -> Iterator[str]:
        """Yield the Services that it leads to, as `namespace/name`."""
        paths = [one for rule in self.spec.rules or () if rule.http for one in rule.http.paths or ()]
        backends = [*(one.backend for one in paths), self.spec.default_backend]
        for backend in backends:
            if backend and backend.service:
                yield f"{self.metadata.namespace}/{backend.service.name}"


class BackendRef(msgspec.Struct):
    """A backend of an HTTPRoute."""

    name: str = ""
    kind: str = "Service"
    group: str = ""
    namespace: str = ""


class RouteRule(msgspec.Struct, rename="camel"):
    """A rule of an HTTPRoute."""

    backend_refs: list[BackendRef] | None = None


class RouteSpec(msgspec.Struct):
    """The rules of an HTTPRoute."""

    rules: list[RouteRule] | None = None


class HttpRoute(msgspec.Struct):
    """An HTTPRoute of the Gateway API."""

    metadata: ObjectMeta
    spec: RouteSpec = msgspec.field(default_factory=RouteSpec)

    def services(self) -> Iterator[str]:
        """Yield the Services that it leads to, as `namespace/name`."""
        for rule in self.spec.rules or ():
            for ref in rule.backend_refs or ():
                if (ref.group, ref.kind) == ("", "Service"):
                    yield f"{ref.namespace or self.metadata.namespace}/{ref.name}"


async def check_routes(cluster: ClusterClient, items: list[ScaledService]) -> CheckResult:
    """Find the routes past the proxy. Raises `ApiError`."""
    ingresses = await _read(cluster, path("networking.k8s.io/v1", "ingresses", cluster.namespace), Ingress)
    routes = await _read(cluster, path("gateway.networking.k8s.io/v1", "httproutes", cluster.namespace), HttpRoute)
    summary = f"{pluralize(len(ingresses), 'Ingress object')}, {pluralize(len(routes), 'HTTPRoute')}"
    return CheckResult("routes", summary, tuple(find_direct_routes(items, ingresses, routes)))


def find_direct_routes(
    items: Iterable[ScaledService], ingresses: Iterable[Ingress], routes: Iterable[HttpRoute]
) -> Iterator[Finding]:
    """Yield a finding for each route to the Service of a ScaledService."""
    ours = {service_of(item): item.metadata.key for item in items}
    kinds: tuple[tuple[str, Iterable[Ingress | HttpRoute]], ...] = (("Ingress", ingresses), ("HTTPRoute", routes))
    for kind, objects in kinds:
        for one in objects:
            for service in dict.fromkeys(name for name in one.services() if name in ours):
                message = f"it leads to Service {service} past the proxy: it does not wake {ours[service]}"
                remedy = REMEDY.format(service=ours[service])
                yield Finding(FindingCode.ROUTE_PAST_PROXY, f"{kind} {one.metadata.key}", message, remedy)


async def _read(cluster: ClusterClient, where: str, kind: type[_T]) -> list[_T]:
    """Return the objects of a kind; none if the cluster does not have the kind. Raises `ApiError`."""
    decode: Any = decoder(kind)
    try:
        return await cluster.list_objects(where, decode)
    except ApiError as error:
        if error.status != 404:
            raise
        return []
