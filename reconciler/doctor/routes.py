"""A check for routes and load balancers that lead to a Service directly, past the proxy that wakes it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import msgspec

from reconciler.cluster_client.cluster import ClusterClient
from reconciler.core.text import pluralize
from reconciler.doctor.findings import CheckResult, Finding, FindingCode, Severity
from reconciler.doctor.route_kinds import KINDS, ForeignRoute, RouteKind
from reconciler.kubernetes.client.errors import FORBIDDEN, NOT_FOUND, ApiError
from reconciler.kubernetes.config.resolve import service_of
from reconciler.kubernetes.types.builtin import Service
from reconciler.kubernetes.types.objects import ObjectMeta, api_path, decoder, path
from reconciler.kubernetes.types.scaled_service import ScaledService

REMEDY = (
    "capture the Service (docs/how-to/capture.md), or lead it to zenvoy's Service zenvoy-proxy and add its host to the "
    "hosts of {service} (docs/how-to/front-ends-and-networks.md)"
)
LOAD_BALANCER = "LoadBalancer"
EXPOSED = {LOAD_BALANCER: "clients outside of the cluster", "NodePort": "connections to the ports of the nodes"}
"""Types of Services, and what they admit."""
_T = TypeVar("_T")


class _Kind(msgspec.Struct):
    name: str = ""


class _Kinds(msgspec.Struct):
    resources: list[_Kind] = []


_DECODE_KINDS = decoder(_Kinds)


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
    """Find the routes past the proxy. No route leads past it to a captured Service. Raises `ApiError`."""
    items = [item for item in items if not item.is_captured]
    ingresses = await _read(cluster, path("networking.k8s.io/v1", "ingresses", cluster.namespace), Ingress)
    routes = await _read(cluster, path("gateway.networking.k8s.io/v1", "httproutes", cluster.namespace), HttpRoute)
    found = [*find_direct_routes(items, ingresses, routes)]
    for kind in KINDS:
        try:
            others = await _read_kind(cluster, kind)
        except ApiError as error:
            if error.status != FORBIDDEN:
                raise
            message, remedy = (
                f"it was not checked: {error.message}",
                "ask an administrator for the permission to list it",
            )
            found.append(Finding(FindingCode.NOT_PERMITTED, kind.kind, message, remedy, Severity.NOTE))
        else:
            named = ((one.metadata.key, one.services(kind.keys)) for one in others)
            found += _direct(items, kind.kind, named)
    found += find_exposed_services(items, await _read(cluster, path("v1", "services", cluster.namespace), Service))
    summary = f"{pluralize(len(ingresses), 'Ingress object')}, {pluralize(len(routes), 'HTTPRoute')}"
    return CheckResult("routes", summary, tuple(found))


def find_exposed_services(items: Iterable[ScaledService], services: Iterable[Service]) -> Iterator[Finding]:
    """Yield a finding for each Service of a ScaledService that clients outside of the cluster may use directly."""
    ours = {service_of(item): item.metadata.key for item in items}
    for one in services:
        name, kind = one.metadata.key, one.spec.type
        if name in ours and kind in EXPOSED:
            message = (
                f"its {EXPOSED[kind]} lead to the pods past the proxy: they do not wake {ours[name]}, or keep it awake"
            )
            remedy = (
                "capture the Service (docs/how-to/capture.md), or use type ClusterIP and expose zenvoy's Service "
                "instead (proxy.service in the chart's values)"
            )
            severity = Severity.PROBLEM if kind == LOAD_BALANCER else Severity.NOTE
            yield Finding(FindingCode.SERVICE_PAST_PROXY, f"Service {name}", message, remedy, severity)


def find_direct_routes(
    items: Iterable[ScaledService], ingresses: Iterable[Ingress], routes: Iterable[HttpRoute]
) -> Iterator[Finding]:
    """Yield a finding for each route to the Service of a ScaledService."""
    kinds: tuple[tuple[str, Iterable[Ingress | HttpRoute]], ...] = (("Ingress", ingresses), ("HTTPRoute", routes))
    for kind, objects in kinds:
        yield from _direct(items, kind, ((one.metadata.key, one.services()) for one in objects))


def _direct(
    items: Iterable[ScaledService], kind: str, objects: Iterable[tuple[str, Iterator[str]]]
) -> Iterator[Finding]:
    """Yield the findings for objects of one kind, each with its key and the Services that it leads to."""
    ours = {service_of(item): item.metadata.key for item in items}
    for key, services in objects:
        for service in dict.fromkeys(name for name in services if name in ours):
            message = f"it leads to Service {service} past the proxy: it does not wake {ours[service]}"
            remedy = REMEDY.format(service=ours[service])
            yield Finding(FindingCode.ROUTE_PAST_PROXY, f"{kind} {key}", message, remedy)


async def _read(cluster: ClusterClient, where: str, kind: type[_T]) -> list[_T]:
    """Return the objects of a kind; none if the cluster does not have the kind. Raises `ApiError`."""
    decode: Any = decoder(kind)
    try:
        return await cluster.list_objects(where, decode)
    except ApiError as error:
        if error.status != NOT_FOUND:
            raise
        return []


async def _read_kind(cluster: ClusterClient, kind: RouteKind) -> list[ForeignRoute]:
    """Return the objects of a kind of another project. Raises `ApiError`."""
    for api_version in kind.api_versions:
        try:
            # Everybody may ask for the kinds that there are, but not for objects.
            served = _DECODE_KINDS(await cluster.api.get(api_path(api_version))).resources
        except ApiError as error:
            if error.status != NOT_FOUND:
                raise
            continue
        if any(one.name == kind.plural for one in served):
            return await _read(cluster, path(api_version, kind.plural, cluster.namespace), ForeignRoute)
    return []
