"""Kinds of routes of other projects, and the Services that they lead to. Pure.

Their objects are not validated here: a part of an unexpected type is skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from reconciler.kubernetes.types.objects import ObjectMeta

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


_GATEWAY, _TRAEFIK = "gateway.networking.k8s.io", "traefik.io/v1alpha1"
KINDS = (
    RouteKind("GRPCRoute", "grpcroutes", (f"{_GATEWAY}/v1",), ("backendRefs",)),
    RouteKind(
        "TLSRoute", "tlsroutes", (f"{_GATEWAY}/v1", f"{_GATEWAY}/v1alpha3", f"{_GATEWAY}/v1alpha2"), ("backendRefs",)
    ),
    RouteKind("TCPRoute", "tcproutes", (f"{_GATEWAY}/v1", f"{_GATEWAY}/v1alpha2"), ("backendRefs",)),
    RouteKind("Route", "routes", ("route.openshift.io/v1",), ("to", "alternateBackends")),
    RouteKind("IngressRoute", "ingressroutes", (_TRAEFIK,), ("services",)),
    RouteKind("IngressRouteTCP", "ingressroutetcps", (_TRAEFIK,), ("services",)),
    RouteKind("HTTPProxy", "httpproxies", ("projectcontour.io/v1",), ("services",)),
    RouteKind(
        "VirtualService",
        "virtualservices",
        ("networking.istio.io/v1", "networking.istio.io/v1beta1"),
        (DESTINATION,),
    ),
)


class ForeignRoute(msgspec.Struct):
    """An object of one of these kinds."""

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
        for key, inner in value.items():
            if key in keys:
                yield from (
                    (key, one) for one in (inner if isinstance(inner, list) else [inner]) if isinstance(one, dict)
                )
            yield from _found(inner, keys)
