"""Findings about Ingresses and HTTPRoutes that lead past the proxy."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from reconciler.doctor.findings import FindingCode, Severity
from reconciler.doctor.routes import (
    HTTP_ROUTE,
    INGRESS,
    OTHER_KINDS,
    RouteKind,
    RouteObject,
    find_direct_routes,
    find_exposed_services,
)
from reconciler.kubernetes.types.builtin import Service, ServiceSpec
from reconciler.kubernetes.types.objects import ObjectMeta
from reconciler.kubernetes.types.scaled_service import ScaledService, ScaledServiceSpec

WEB = ScaledService(ObjectMeta("web", "shop"), ScaledServiceSpec(service="front"))


def an_object(spec: dict[str, Any], namespace: str = "shop") -> RouteObject:
    return msgspec.convert({"metadata": {"name": "edge", "namespace": namespace}, "spec": spec}, RouteObject)


def ingress(spec: dict[str, Any], namespace: str = "shop") -> tuple[RouteKind, RouteObject]:
    return INGRESS, an_object(spec, namespace)


def route(*refs: dict[str, Any], namespace: str = "shop") -> tuple[RouteKind, RouteObject]:
    return HTTP_ROUTE, an_object({"rules": [{"backendRefs": list(refs)}, {}]}, namespace)


def to(name: str) -> dict[str, Any]:
    return {"service": {"name": name, "port": {"number": 80}}}


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ingress({"defaultBackend": to("front")}),
        ingress({"rules": [{"http": {"paths": [{"path": "/", "backend": to("front")}]}}, {"host": "a.example"}]}),
        route({"name": "front", "port": 80}),
        route({"name": "front", "namespace": "shop"}, namespace="edge"),
    ],
)
def test_route_to_service_of_scaled_service_is_a_problem(kind: RouteKind, found: RouteObject) -> None:
    (finding,) = find_direct_routes([WEB], kind, [found])
    assert (finding.code, finding.severity) == (FindingCode.ROUTE_PAST_PROXY, Severity.PROBLEM)
    assert finding.place == f"{kind.kind} {found.metadata.key}"
    assert "Service shop/front" in finding.message and "shop/web" in finding.remedy


def test_route_to_one_service_twice_is_one_finding() -> None:
    kind, twice = ingress({"defaultBackend": to("front"), "rules": [{"http": {"paths": [{"backend": to("front")}]}}]})
    assert len([*find_direct_routes([WEB], kind, [twice])]) == 1


def test_services_of_ingress_name_the_default_last() -> None:
    kind, both = ingress({"defaultBackend": to("rest"), "rules": [{"http": {"paths": [{"backend": to("front")}]}}]})
    assert [*both.services(kind.keys)] == ["shop/front", "shop/rest"]


@pytest.mark.parametrize(
    ("kind", "other"),
    [
        ingress({"defaultBackend": to("web")}),
        ingress({"defaultBackend": to("front")}, namespace="edge"),
        ingress({"defaultBackend": {"resource": {"kind": "Bucket", "name": "front"}}}),
        route({"name": "front", "kind": "Bucket", "group": "storage.example"}),
        route({"name": "front"}, namespace="edge"),
    ],
)
def test_route_elsewhere_is_no_finding(kind: RouteKind, other: RouteObject) -> None:
    assert not [*find_direct_routes([WEB], kind, [other])]


FRONT = {"name": "front", "port": 80}


@pytest.mark.parametrize(
    ("kind", "spec", "services"),
    [
        ("GRPCRoute", {"rules": [{"backendRefs": [FRONT, {"name": "b", "kind": "Bucket", "group": "a"}]}]}, ["front"]),
        ("TCPRoute", {"rules": [{"backendRefs": [{**FRONT, "namespace": "shop"}]}, {}]}, ["front"]),
        ("TLSRoute", {"rules": None}, []),
        (
            "Route",
            {"to": {"kind": "Service", **FRONT}, "alternateBackends": [{"kind": "Service", "name": "b"}]},
            ["front", "b"],
        ),
        ("IngressRoute", {"routes": [{"services": [FRONT, {"name": "t", "kind": "TraefikService"}]}]}, ["front"]),
        ("IngressRouteTCP", {"routes": [{"services": [FRONT]}, "nonsense", 5]}, ["front"]),
        ("HTTPProxy", {"routes": [{"services": [FRONT]}], "tcpproxy": {"services": [{"name": "b"}]}}, ["front", "b"]),
        (
            "VirtualService",
            {
                "http": [
                    {"route": [{"destination": {"host": "front"}}, {"destination": {"host": "b.shop.svc.c.local"}}]}
                ],
                "tcp": [{"route": [{"destination": {"host": "c.edge"}}, {"destination": None}]}],
            },
            ["front", "b", "edge/c"],
        ),
    ],
)
def test_route_of_other_project_names_its_services(kind: str, spec: dict[str, Any], services: list[str]) -> None:
    [known] = [one for one in OTHER_KINDS if one.kind == kind]
    assert [*an_object(spec).services(known.keys)] == [name if "/" in name else f"shop/{name}" for name in services]


@pytest.mark.parametrize(
    ("kind", "severity"), [("LoadBalancer", Severity.PROBLEM), ("NodePort", Severity.NOTE), ("ClusterIP", None)]
)
def test_service_that_is_exposed_itself_is_found(kind: str, severity: Severity | None) -> None:
    services = [Service(ObjectMeta(name, "shop"), ServiceSpec(type=kind)) for name in ("front", "other")]
    found = [(one.place, one.severity) for one in find_exposed_services([WEB], services)]
    assert found == ([("Service shop/front", severity)] if severity else [])
