"""A check for routes and load balancers that lead to a Service directly, past the proxy that wakes it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from reconciler.cluster_client.cluster import ClusterClient
from reconciler.core.text import pluralize
from reconciler.doctor.findings import CheckResult, Finding, FindingCode, Severity
from reconciler.kubernetes.client.errors import FORBIDDEN, ApiError
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
DESTINATION = "destination"
"""The key of an Istio destination, which names a host instead of a Service."""


@dataclass(frozen=True, slots=True)
class RouteKind:
    """A kind of routes, and the keys under which its objects refer to Services."""

    kind: str
    plural: str
    api_versions: tuple[str, ...]
    """The first one that the cluster serves is used."""
    keys: tuple[str, ...]


_GATEWAY, _ISTIO, _TRAEFIK = "gateway.networking.k8s.io", "networking.istio.io", "traefik.io/v1alpha1"
INGRESS = RouteKind("Ingress", "ingresses", ("networking.k8s.io/v1",), ("service",))
HTTP_ROUTE = RouteKind("HTTPRoute", "httproutes", (f"{_GATEWAY}/v1",), ("backendRefs",))
OTHER_KINDS = (
    RouteKind("GRPCRoute", "grpcroutes", (f"{_GATEWAY}/v1",), ("backendRefs",)),
    RouteKind(
        "TLSRoute", "tlsroutes", (f"{_GATEWAY}/v1", f"{_GATEWAY}/v1alpha3", f"{_GATEWAY}/v1alpha2"), ("backendRefs",)
    ),
    RouteKind("TCPRoute", "tcproutes", (f"{_GATEWAY}/v1", f"{_GATEWAY}/v1alpha2"), ("backendRefs",)),
    RouteKind("Route", "routes", ("route.openshift.io/v1",), ("to", "alternateBackends")),
    RouteKind("IngressRoute", "ingressroutes", (_TRAEFIK,), ("services",)),
    RouteKind("IngressRouteTCP", "ingressroutetcps", (_TRAEFIK,), ("services",)),
    RouteKind("HTTPProxy", "httpproxies", ("projectcontour.io/v1",), ("services",)),
    RouteKind("VirtualService", "virtualservices", (f"{_ISTIO}/v1", f"{_ISTIO}/v1beta1"), (DESTINATION,)),
)


class RouteObject(msgspec.Struct):
    """An object of one of these kinds. It is not validated here: a part of an unexpected type is skipped."""

    metadata: ObjectMeta
    spec: Any = None

    def services(self, keys: tuple[str, ...]) -> Iterator[str]:
        """Yield the Services that it leads to, as `namespace/name`."""
        for key, one in _found(self.spec, keys):
            name, namespace = one.get("name"), one.get("namespace") or self.metadata.namespace
            if key == DESTINATION:
                name, _, rest = str(one.get("host", "")).partition(".")
                namespace = rest.partition(".")[0] or self.metadata.namespace
            elif one.get("group") or one.get("kind", "Service") != "Service":
                continue
            if isinstance(name, str) and isinstance(namespace, str):
                yield f"{namespace}/{name}"


def _found(value: Any, keys: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each mapping at one of the keys, however deep; an array counts as its items."""
    if isinstance(value, list):
        for one in value:
            yield from _found(one, keys)
    elif isinstance(value, dict):
        for key, inner in sorted(value.items(), key=lambda one: one[0] == "defaultBackend"):  # after the rules
            if key in keys:
                yield from (
                    (key, one) for one in (inner if isinstance(inner, list) else [inner]) if isinstance(one, dict)
                )
            yield from _found(inner, keys)


async def check_routes(cluster: ClusterClient, items: list[ScaledService]) -> CheckResult:
    """Find the routes past the proxy. No route leads past it to a captured Service. Raises `ApiError`."""
    items = [item for item in items if not item.is_captured]
    ingresses = await _read(cluster, INGRESS, INGRESS.api_versions[0])
    routes = await _read(cluster, HTTP_ROUTE, HTTP_ROUTE.api_versions[0])
    found = [*find_direct_routes(items, INGRESS, ingresses), *find_direct_routes(items, HTTP_ROUTE, routes)]
    for kind in OTHER_KINDS:
        try:
            found += find_direct_routes(items, kind, await _read_served(cluster, kind))
        except ApiError as error:
            if error.status != FORBIDDEN:
                raise
            message = f"it was not checked: {error.message}"
            remedy = "ask an administrator for the permission to list it"
            found.append(Finding(FindingCode.NOT_PERMITTED, kind.kind, message, remedy, Severity.NOTE))
    services = await cluster.list_served(path("v1", "services", cluster.namespace), decoder(Service))
    found += find_exposed_services(items, services)
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
    items: Iterable[ScaledService], kind: RouteKind, routes: Iterable[RouteObject]
) -> Iterator[Finding]:
    """Yield a finding for each route to the Service of a ScaledService."""
    ours = {service_of(item): item.metadata.key for item in items}
    for one in routes:
        for service in dict.fromkeys(name for name in one.services(kind.keys) if name in ours):
            message = f"it leads to Service {service} past the proxy: it does not wake {ours[service]}"
            remedy = REMEDY.format(service=ours[service])
            yield Finding(FindingCode.ROUTE_PAST_PROXY, f"{kind.kind} {one.metadata.key}", message, remedy)


async def _read(cluster: ClusterClient, kind: RouteKind, api_version: str) -> list[RouteObject]:
    return await cluster.list_served(path(api_version, kind.plural, cluster.namespace), decoder(RouteObject))


async def _read_served(cluster: ClusterClient, kind: RouteKind) -> list[RouteObject]:
    """Return the objects of a kind of another project. Raises `ApiError`."""
    for api_version in kind.api_versions:
        # Everybody may ask for the kinds that there are, but not for objects.
        served = await cluster.api.find(api_path(api_version))
        resources = msgspec.json.decode(served).get("resources") if served else None
        if any(one.get("name") == kind.plural for one in resources or ()):
            return await _read(cluster, kind, api_version)
    return []
