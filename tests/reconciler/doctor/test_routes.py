"""Findings about Ingresses and HTTPRoutes that lead past the proxy."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from reconciler.doctor.findings import FindingCode, Severity
from reconciler.doctor.routes import HttpRoute, Ingress, find_direct_routes
from reconciler.kubernetes.types.objects import ObjectMeta
from reconciler.kubernetes.types.scaled_service import ScaledService, ScaledServiceSpec

WEB = ScaledService(ObjectMeta("web", "shop"), ScaledServiceSpec(service="front"))


def ingress(spec: dict[str, Any], namespace: str = "shop") -> Ingress:
    return msgspec.convert({"metadata": {"name": "edge", "namespace": namespace}, "spec": spec}, Ingress)


def route(*refs: dict[str, Any], namespace: str = "shop") -> HttpRoute:
    spec = {"rules": [{"backendRefs": list(refs)}, {}]}
    return msgspec.convert({"metadata": {"name": "edge", "namespace": namespace}, "spec": spec}, HttpRoute)


def to(name: str) -> dict[str, Any]:
    return {"service": {"name": name, "port": {"number": 80}}}


@pytest.mark.parametrize(
    "found",
    [
        ingress({"defaultBackend": to("front")}),
        ingress({"rules": [{"http": {"paths": [{"path": "/", "backend": to("front")}]}}, {"host": "a.example"}]}),
        route({"name": "front", "port": 80}),
        route({"name": "front", "namespace": "shop"}, namespace="edge"),
    ],
)
def test_route_to_service_of_scaled_service_is_a_problem(found: Ingress | HttpRoute) -> None:
    routes = ([found], []) if isinstance(found, Ingress) else ([], [found])
    (finding,) = find_direct_routes([WEB], *routes)
    assert (finding.code, finding.severity) == (FindingCode.ROUTE_PAST_PROXY, Severity.PROBLEM)
    assert finding.place == f"{'Ingress' if isinstance(found, Ingress) else 'HTTPRoute'} {found.metadata.key}"
    assert "Service shop/front" in finding.message and "shop/web" in finding.remedy


def test_route_to_one_service_twice_is_one_finding() -> None:
    twice = ingress({"defaultBackend": to("front"), "rules": [{"http": {"paths": [{"backend": to("front")}]}}]})
    assert len([*find_direct_routes([WEB], [twice], [])]) == 1


@pytest.mark.parametrize(
    "other",
    [
        ingress({"defaultBackend": to("web")}),
        ingress({"defaultBackend": to("front")}, namespace="edge"),
        ingress({"defaultBackend": {"resource": {"kind": "Bucket", "name": "front"}}}),
        route({"name": "front", "kind": "Bucket", "group": "storage.example"}),
        route({"name": "front"}, namespace="edge"),
    ],
)
def test_route_elsewhere_is_no_finding(other: Ingress | HttpRoute) -> None:
    assert not [*find_direct_routes([WEB], *([[other], []] if isinstance(other, Ingress) else [[], [other]]))]
