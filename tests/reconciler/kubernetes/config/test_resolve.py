"""Resolution of a ScaledService with its Service: defaults, and every problem with its message."""

from __future__ import annotations

import pytest

from reconciler.core.spec import Protocol, Spec, UsageUnit
from reconciler.envoy import xds_router
from reconciler.kubernetes.config.host_policy import HostPolicy
from reconciler.kubernetes.config.resolve import ClusterConfig, resolve
from reconciler.kubernetes.config.service_config import Readiness, ServiceConfig
from reconciler.kubernetes.types.builtin import Service, ServicePort
from reconciler.kubernetes.types.objects import Target
from tests.reconciler.kubernetes.objects import WEB, scaled, service
from xds import ir
from xds.resources.validation import faults

CLUSTER = ClusterConfig()


def entry(spec: str = "", ports: str = WEB) -> ServiceConfig:
    found = resolve(scaled(spec), service(ports), CLUSTER)
    assert isinstance(found, ServiceConfig), found
    return found


def said(spec: str, of: Service | None) -> list[str]:
    """The problems, as people read them, each with its reason."""
    found = resolve(scaled(spec), of, CLUSTER)
    assert not isinstance(found, ServiceConfig), found
    assert all("\n" not in str(problem) and problem.reason.isalnum() for problem in found)
    return [f"{problem.reason}: {problem}" for problem in found]


def test_resolve_empty_spec_uses_defaults() -> None:
    assert entry() == ServiceConfig(
        Spec(
            name="shop/web",
            protocol=Protocol.HTTP,
            hosts=("web.shop", "web.shop.svc", "web.shop.svc.cluster.local"),
            idle_after=300,
            wake_timeout=120,
            hold_timeout=60,
            drain_timeout=30,
            max_held=1024,
            idle_by=UsageUnit.REQUESTS,
        ),
        Target("apps/v1", "Deployment", "web", "shop"),
        "web",
        ServicePort("http", 80, target_port=8080),
        1795428000.0,
        "uid-shop-web",
        1,
    )


def test_resolve_full_spec_sets_every_field() -> None:
    spec = """
        service: front
        scaleTargetRef: {apiVersion: argoproj.io/v1alpha1, kind: Rollout, name: backend}
        port: web
        protocol: h2c
        hosts: [shop.example.com]
        replicas: 3
        idleAfter: 1h30m
        wakeTimeout: 90s
        holdTimeout: 500ms
        drainTimeout: 1m
        maxHeld: 5
        idle: {by: bytes}
        readiness: kubernetes
        paused: true
    """
    item = scaled(spec)
    found = resolve(item, service("ports: [{name: web, port: 80}, {name: b, port: 81}]", "front"), CLUSTER)
    assert isinstance(found, ServiceConfig)
    assert found.target == Target("argoproj.io/v1alpha1", "Rollout", "backend", "shop")
    assert (found.service, found.service_key, found.port.port) == ("front", "shop/front", 80)
    assert found.readiness is Readiness.KUBERNETES
    assert found.spec == Spec(
        name="shop/web",
        protocol=Protocol.H2C,
        hosts=("front.shop", "front.shop.svc", "front.shop.svc.cluster.local", "shop.example.com"),
        replicas=3,
        idle_after=5400,
        wake_timeout=90,
        hold_timeout=0.5,
        drain_timeout=60,
        max_held=5,
        idle_by=UsageUnit.BYTES,
        paused=True,
    )


def test_resolve_tcp_has_no_hosts() -> None:
    spec = entry("{protocol: tcp, listen: 5432}").spec
    assert (spec.protocol, spec.listen, spec.hosts) == (Protocol.TCP, "0.0.0.0:5432", ())
    assert spec.idle_by is UsageUnit.CONNECTIONS
    six = resolve(scaled("{listen: 5432, protocol: tcp}"), service(), ClusterConfig(listen_host="[::]"))
    assert isinstance(six, ServiceConfig)
    assert six.spec.listen == "[::]:5432"


def test_resolve_http_with_listen_has_hosts_and_a_port() -> None:
    spec = entry("{protocol: http, listen: 8100, http: {trustedHops: 0}, hosts: [shop.example.com]}").spec
    assert (spec.protocol, spec.listen, spec.trusted_hops) == (Protocol.HTTP, "0.0.0.0:8100", 0)
    assert spec.hosts == ("web.shop", "web.shop.svc", "web.shop.svc.cluster.local", "shop.example.com")
    assert entry("listen: 8100", "ports: [{port: 80, name: grpc}]").spec.protocol is Protocol.H2C


def test_resolve_cluster_domain_is_configurable() -> None:
    found = resolve(scaled(), service(), ClusterConfig(policy=HostPolicy(domain="corp.example")))
    assert isinstance(found, ServiceConfig)
    assert "web.shop.svc.corp.example" in found.spec.hosts


def test_resolve_default_target_has_the_service_name() -> None:
    found = resolve(scaled("{service: front}"), service(name="front"), CLUSTER)
    assert isinstance(found, ServiceConfig)
    assert found.target.name == "front"


@pytest.mark.parametrize(
    ("asked", "ports", "chosen"),
    [
        ("", "[{port: 8080}]", 8080),
        ("", "[{name: admin, port: 9}, {name: http, port: 80}]", 80),
        ("", "[{name: tcp, port: 5}, {name: https, port: 443}]", 443),
        ("", "[{name: dns, port: 53, protocol: UDP}, {name: a, port: 54}]", 54),
        ("port: admin", "[{name: http, port: 80}, {name: admin, port: 9}]", 9),
        ("port: 9", "[{name: http, port: 80}, {name: admin, port: 9}]", 9),
        ('port: "9"', "[{name: http, port: 80}, {name: admin, port: 9}]", 9),
    ],
)
def test_resolve_port_by_name_number_or_default(asked: str, ports: str, chosen: int) -> None:
    assert entry(asked + "\nprotocol: http", f"ports: {ports}").port.port == chosen


@pytest.mark.parametrize(
    ("port", "protocol"),
    [
        ("{port: 80}", "http"),
        ("{port: 80, name: http}", "http"),
        ("{port: 80, name: http-admin}", "http"),
        ("{port: 80, name: grpc-web}", "http"),
        ("{port: 80, name: grpc-web-1}", "http"),
        ("{port: 80, name: grpc}", "h2c"),
        ("{port: 80, name: grpc-shop}", "h2c"),
        ("{port: 80, name: http2}", "h2c"),
        ("{port: 443, name: https}", "tls"),
        ("{port: 443, name: tls-sni}", "tls"),
        ("{port: 80, name: other}", "http"),
        ("{port: 80, name: tcp, appProtocol: http}", "http"),
        ("{port: 80, name: http, appProtocol: kubernetes.io/h2c}", "h2c"),
        ("{port: 80, appProtocol: https}", "tls"),
        ("{port: 80, appProtocol: HTTP}", "http"),
        ("{port: 80, appProtocol: kubernetes.io/ws}", "http"),
        ("{port: 80, name: grpc, appProtocol: example.com/own}", "h2c"),
    ],
)
def test_resolve_protocol_from_the_port(port: str, protocol: str) -> None:
    assert entry("", f"ports: [{port}]").spec.protocol == protocol


@pytest.mark.parametrize(
    "port", ["{port: 5432}", "{port: 5432, name: tcp-db}", "{port: 5432, appProtocol: postgresql}"]
)
def test_resolve_listen_implies_tcp(port: str) -> None:
    assert entry("listen: 5432", f"ports: [{port}]").spec.protocol is Protocol.TCP


@pytest.mark.parametrize(
    ("spec", "ports", "problem"),
    [
        (
            "",
            "type: ExternalName",
            "ServiceUnusable: spec.service: Service shop/web is an ExternalName, which has no pods; use a Service "
            "with a selector",
        ),
        (
            "",
            "{selector: {}, ports: [{port: 80}]}",
            "ServiceUnusable: spec.service: Service shop/web has no selector, so its pods are not known; "
            "add a selector, or use a Service that has one",
        ),
        (
            "",
            "ports: []",
            "PortNotFound: spec.port: Service shop/web has no port; add the TCP port that its pods listen on",
        ),
        (
            "",
            "ports: [{port: 53, protocol: UDP}]",
            "PortNotFound: spec.port: Service shop/web has only UDP ports; add the TCP port that its pods listen on",
        ),
        (
            "port: 8080",
            WEB,
            "PortNotFound: spec.port: Service shop/web has no TCP port 8080; that is the target port of http; use http",
        ),
        (
            "port: htp",
            WEB,
            "PortNotFound: spec.port: Service shop/web has no TCP port htp; did you mean http?",
        ),
        (
            "port: 7",
            "ports: [{name: a, port: 80}, {name: b, port: 81}]",
            "PortNotFound: spec.port: Service shop/web has no TCP port 7; use a or b",
        ),
        (
            "",
            "ports: [{name: a, port: 80}, {name: b, port: 81}]",
            "PortAmbiguous: spec.port: Service shop/web has 2 ports, none of them named http, https, http2 or tcp; "
            "use a or b",
        ),
        (
            "",
            "ports: [{name: tcp, port: 5432}]",
            "ListenMissing: spec.listen: required for tcp services (from the Service port's name tcp), which are "
            "identified by port; set for example listen: 5432, or set protocol: http",
        ),
        (
            "protocol: tcp",
            WEB,
            "ListenMissing: spec.listen: required for tcp services, which are identified by port; set for "
            "example listen: 5432",
        ),
        (
            "listen: 5432",
            "ports: [{name: https, port: 443}]",
            "ListenNotUsed: spec.listen: not available for tls services (from the Service port's name https), which "
            "share a listener; remove listen, or set protocol: tcp",
        ),
        (
            "http: {trustedHops: 1}",
            WEB,
            "TrustedHopsNotUsed: spec.http.trustedHops: only for a service with a port of its own; set for example "
            "listen: 8100, or remove http.trustedHops",
        ),
        (
            "{listen: 5432, http: {trustedHops: 1}}",
            "ports: [{port: 5432}]",
            "TrustedHopsNotUsed: spec.http.trustedHops: not available for tcp services (because spec.listen is set); "
            "remove http.trustedHops, or set protocol: http",
        ),
        (
            "{protocol: http, listen: 8100, http: {trustedHops: 101}}",
            WEB,
            "BadSpec: spec.http.trustedHops: 101 is not a number from 0 to 100; use for example 1",
        ),
        (
            "{listen: 5432, hosts: [a.example]}",
            "ports: [{port: 5432}]",
            "HostsNotUsed: spec.hosts: not available for tcp services (because spec.listen is set), which are "
            "identified by port; remove hosts, or set protocol: http",
        ),
        (
            "idle: {by: connections}",
            "ports: [{port: 80, appProtocol: grpc}]",
            "IdleByUnknown: spec.idle.by: connections is not available for h2c (from the Service port's appProtocol "
            "grpc); use requests or bytes",
        ),
        (
            "idle: {by: connections}",
            "ports: [{port: 80}]",
            "IdleByUnknown: spec.idle.by: connections is not available for http (the default); use requests or bytes",
        ),
        ('idleAfter: "5"', WEB, "BadSpec: spec.idleAfter: 5 has no unit; use for example 5s or 5m"),
        ("wakeTimeout: 0s", WEB, "BadSpec: spec.wakeTimeout: 0s is out of range; use at least 1ms and at most 87600h"),
        ("protocol: udp", WEB, "BadSpec: spec.protocol: 'udp' is not known; use http, h2c, auto, tcp or tls"),
        ("replicas: 0", WEB, "BadSpec: spec.replicas: 0 is not valid; use last, or a number from 1 to 100000"),
        ("replicas: all", WEB, "BadSpec: spec.replicas: 'all' is not valid; use last, or a number from 1 to 100000"),
        ("maxHeld: 0", WEB, "BadSpec: spec.maxHeld: 0 is not a number from 1 to 1000000; use for example 1024"),
        (
            "{protocol: tcp, listen: 70000}",
            WEB,
            "BadSpec: spec.listen: 70000 is not a number from 1 to 65535; use for example 5432",
        ),
        (
            "scaleTargetRef: {name: ../../victim/deployments/db}",
            WEB,
            "BadSpec: spec.scaleTargetRef.name: '../../victim/deployments/db' is not a valid name; write a name such "
            "as web: at most 253 of a-z, 0-9, - and .",
        ),
        (
            "scaleTargetRef: {kind: 'Deployment?'}",
            WEB,
            "BadSpec: spec.scaleTargetRef.kind: 'Deployment?' is not a valid kind; write a kind such as Deployment: at "
            "most 63 letters, digits and -",
        ),
        (
            "scaleTargetRef: {apiVersion: apps/v1/x}",
            WEB,
            "BadSpec: spec.scaleTargetRef.apiVersion: 'apps/v1/x' is not a valid apiVersion; write group/version, as "
            "in apps/v1",
        ),
        ("readiness: probe", WEB, "BadSpec: spec.readiness: 'probe' is not known; did you mean probes?"),
        ("idle: {by: luck}", WEB, "BadSpec: spec.idle.by: 'luck' is not known; use requests, connections or bytes"),
    ],
)
def test_resolve_invalid_reports_place_and_remedy(spec: str, ports: str, problem: str) -> None:
    assert said(spec, service(ports)) == [problem]


def test_resolve_missing_service_is_a_problem() -> None:
    assert said("", None) == [
        "ServiceNotFound: spec.service: Service shop/web does not exist; create it, or name an existing one"
    ]


def test_resolve_invalid_service_name_is_rejected() -> None:
    service_name, target_name = said("service: ../victim/web", None)[1:]
    assert service_name == (
        "BadSpec: spec.service: '../victim/web' is not a valid Service name; use at most 63 characters from a-z, "
        "0-9, and -, for example web"
    )
    assert target_name.startswith("BadSpec: spec.scaleTargetRef.name: '../victim/web' is not a valid name")


def test_resolve_reports_all_problems() -> None:
    found = said("{port: 1, replicas: 0, idleAfter: soon, maxHeld: 0}", service())
    assert [problem.partition(":")[0] for problem in found] == ["PortNotFound", "BadSpec", "BadSpec", "BadSpec"]


def test_resolve_headless_service_is_accepted() -> None:
    assert entry("", "{clusterIP: None, ports: [{port: 80}]}").port.port == 80


def test_resolve_too_long_name_is_a_problem() -> None:
    long = scaled("service: web", name="a" * 249)
    found = resolve(long, service(), CLUSTER)
    assert not isinstance(found, ServiceConfig)
    assert [str(problem) for problem in found] == [
        "metadata.name: with its namespace and a slash it has 254 characters; the maximum is 253; "
        "use a shorter name, and set spec.service to the name of the Service"
    ]
    just = resolve(scaled("service: web", name="a" * 248), service(), CLUSTER)
    assert isinstance(just, ServiceConfig)
    configured = xds_router.service(just.spec)
    assert not faults(ir.Listen(ir.SocketAddress("0.0.0.0", 10000)), [configured])
