"""Capture in a specification: the Services that can be captured, the port, and the names of zenvoy's objects."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from reconciler.core.reasons import Reason
from reconciler.core.spec import Protocol
from reconciler.kubernetes.config.capture import companion_of
from reconciler.kubernetes.config.conflicts import ClaimRules, reserved_ports, resolve_conflicts
from reconciler.kubernetes.config.host_policy import parse_policy
from reconciler.kubernetes.config.resolve import ClusterConfig, resolve
from reconciler.kubernetes.config.service_config import ServiceConfig
from reconciler.kubernetes.types.builtin import EndpointSlice
from reconciler.kubernetes.types.objects import ObjectMeta
from reconciler.kubernetes.types.scaled_service import ScaledService, ScaledServiceStatus
from tests.reconciler.kubernetes.objects import WEB, scaled, service

PORTS = range(12000, 12010)
CLUSTER = ClusterConfig(capture_ports=PORTS)


def item(spec: str, port: int = 12000, **more: Any) -> ScaledService:
    return msgspec.structs.replace(scaled(spec, **more), status=ScaledServiceStatus(capture_port=port))


def resolved(spec: str, of: str = WEB, port: int = 12000, cluster: ClusterConfig = CLUSTER) -> ServiceConfig:
    found = resolve(item(spec, port), service(of), cluster)
    assert isinstance(found, ServiceConfig), found
    return found


def test_captured_service_listens_on_its_assigned_port() -> None:
    found = resolved("capture: proxy")
    assert (found.spec.listen, found.spec.protocol, found.capture.port) == ("0.0.0.0:12000", Protocol.HTTP, 12000)
    assert found.spec.hosts, "its names on the shared port stay"


def test_captured_tcp_service_needs_no_listen() -> None:
    assert resolved("{capture: proxy, protocol: tcp}").spec.listen == "0.0.0.0:12000"


def test_captured_service_has_no_listen_of_its_own() -> None:
    found = resolve(item("{capture: proxy, protocol: tcp, listen: 5432}"), service(), CLUSTER)
    assert isinstance(found, tuple)
    assert [(one.reason, one.field) for one in found] == [(Reason.LISTEN_NOT_USED, "spec.listen")]


def test_captured_tcp_service_without_a_port_awaits_one() -> None:
    found = resolved("{capture: proxy, protocol: tcp}", port=0)
    assert found.spec.listen is None and found.awaits_port
    assert not resolved("capture: proxy", port=0).awaits_port, "hosts lead to an http service already"


def test_port_stays_after_the_capture_is_turned_off() -> None:
    """Its callers are led to the port until every node has applied the release."""
    found = resolved("{capture: none, listen: 8100, protocol: http}")
    assert (found.spec.listen, found.capture.wanted) == ("0.0.0.0:12000", False)
    assert resolved("{capture: none, listen: 8100, protocol: http}", port=0).spec.listen == "0.0.0.0:8100"


def test_port_of_another_installation_is_not_used() -> None:
    assert resolved("capture: none", port=20000).spec.listen is None


@pytest.mark.parametrize(
    ("of", "words"),
    [
        ("{clusterIP: None, ports: [{port: 80}]}", "headless"),
        ("ports: [{name: http, port: 80}, {name: dns, port: 53, protocol: UDP}]", "2 ports"),
        ("{ipFamilies: [IPv4, IPv6], ports: [{port: 80}]}", "IPv6"),
        ("{sessionAffinity: ClientIP, ports: [{port: 80}]}", "sessionAffinity ClientIP"),
        ("{internalTrafficPolicy: Local, ports: [{port: 80}]}", "internalTrafficPolicy Local"),
        ("{externalTrafficPolicy: Local, ports: [{port: 80}]}", "externalTrafficPolicy Local"),
    ],
)
def test_service_that_cannot_be_captured_has_the_reason(of: str, words: str) -> None:
    problem = resolved("capture: proxy", of).capture.problem
    assert problem and problem.reason is Reason.CAPTURE_NOT_POSSIBLE
    assert words in problem.message and problem.field == "spec.capture" and problem.remedy


def test_capture_without_ports_is_disabled() -> None:
    problem = resolved("capture: proxy", cluster=ClusterConfig()).capture.problem
    assert problem and problem.reason is Reason.CAPTURE_DISABLED


def test_tls_service_cannot_be_captured() -> None:
    found = resolve(item("{capture: proxy, protocol: tls}"), service(), CLUSTER)
    assert isinstance(found, tuple)
    assert [(one.reason, one.field) for one in found] == [(Reason.CAPTURE_NOT_POSSIBLE, "spec.capture")]


def test_selector_without_the_key_is_that_of_the_pods() -> None:
    captured = service("{selector: {app: web, zenvoy.dev/captured: 'true'}, ports: [{port: 80}]}")
    assert captured.is_captured
    assert captured.pod_selector == {"app": "web"}


def test_companion_name_is_a_valid_one_of_its_own() -> None:
    assert companion_of("shop/web") == "shop/web-zenvoy-pods"
    long = [companion_of(f"shop/{'a' * 62}{end}") for end in "bc"]
    assert len(set(long)) == 2
    assert all(len(name.partition("/")[2]) <= 63 for name in long)


def test_assigned_port_is_no_claim_and_is_reserved_for_others() -> None:
    policy = parse_policy('[{"namespaces": ["other"], "ports": ["1-65535"]}]')
    captured = resolved("capture: proxy")
    claims = resolve(item("{protocol: tcp, listen: 12001}", 0, name="db"), service(name="db"), CLUSTER)
    assert isinstance(claims, ServiceConfig)
    asked = {"shop/web": captured, "shop/db": claims}
    settled = resolve_conflicts(asked, ClaimRules(reserved_ports(captured=PORTS), policy, None))
    assert settled.entries["shop/web"].spec.listen == "0.0.0.0:12000"
    assert [one.reason for one in settled.problems["shop/db"]] == [Reason.LISTEN_RESERVED]


def test_label_on_another_service_leaves_its_endpoints_its_own() -> None:
    """Kubernetes copies the labels of a Service to its EndpointSlices."""
    labels = {"kubernetes.io/service-name": "web", "zenvoy.dev/captured-service": "proxy"}
    mistaken = EndpointSlice(ObjectMeta("web-1", "shop", labels=labels))
    assert (mistaken.service, mistaken.is_companion) == ("shop/web", False)
    labels = {"kubernetes.io/service-name": "web-zenvoy-pods", "zenvoy.dev/captured-service": "web"}
    assert EndpointSlice(ObjectMeta("pods-1", "shop", labels=labels)).service == "shop/web"
    assert service(labels={"zenvoy.dev/captured-service": "proxy"}).captured == ""
