"""Validation of ScaledServices by the API server: accepted specs, defaults, and an error for each mistake."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from reconciler.kubernetes.client.api import MERGE_PATCH, Api
from reconciler.kubernetes.client.errors import ApiError
from reconciler.kubernetes.config.resolve import ClusterConfig as Site
from reconciler.kubernetes.config.resolve import resolve, target_of
from reconciler.kubernetes.config.service_config import ServiceConfig
from reconciler.kubernetes.types.objects import decoder, path
from reconciler.kubernetes.types.scaled_service import API_VERSION, KIND, PLURAL, ScaledService
from tests.cluster import crd
from tests.cluster.harness import Cluster
from tests.reconciler.kubernetes.objects import scaled, service

STATUS = """
    state: Active
    target: Deployment/web
    since: "2026-11-23T10:00:00.123456Z"
    reason: reachable
    replicas: 3
    holdAddress: "127.64.0.7:18001"
    stalled: it is not ready
    zeroed: true
    observedGeneration: 1
    observedCommand: wake@now
    conditions:
      - {type: Ready, status: "True", reason: Active, message: reachable, lastTransitionTime: "2026-11-23T10:00:00Z"}
"""


@pytest.fixture(autouse=True)
async def installed(api: Api) -> None:
    await crd.install(api)


async def make(api: Api, namespace: str, spec: str, name: str = "web") -> dict[str, Any]:
    """Create a ScaledService; `spec` is YAML. Raises `ApiError`."""
    body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": yaml.safe_load(spec)}
    if body["spec"] is None:
        del body["spec"]
    query = {"fieldValidation": "Strict"}
    made: dict[str, Any] = json.loads(await api.call("POST", path(API_VERSION, PLURAL, namespace), body, query=query))
    return made


async def change(api: Api, namespace: str, patch: dict[str, Any], part: str | None = None) -> dict[str, Any]:
    where = path(API_VERSION, PLURAL, namespace, "web", part)
    changed: dict[str, Any] = json.loads(
        await api.call("PATCH", where, patch, MERGE_PATCH, {"fieldValidation": "Strict"})
    )
    return changed


async def test_crd_defaults_equal_those_of_the_code(api: Api, namespace: str) -> None:
    made = await make(api, namespace, "")
    assert made["spec"] == {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment"},
        "replicas": "last",
        "idleAfter": "5m",
        "wakeTimeout": "2m",
        "holdTimeout": "60s",
        "drainTimeout": "30s",
        "maxHeld": 1024,
        "readiness": "probes",
        "capture": "none",
        "refusalDetails": False,
        "paused": False,
    }
    filled = decoder(ScaledService)(json.dumps(made).encode())
    bare = scaled(namespace=namespace)
    of = service(namespace=namespace)
    one, other = resolve(filled, of, Site()), resolve(bare, of, Site())
    assert isinstance(one, ServiceConfig) and isinstance(other, ServiceConfig)
    assert (one.spec, one.target) == (other.spec, other.target)
    assert target_of(filled) == target_of(bare)


@pytest.mark.parametrize(
    "spec",
    [
        "{service: web, port: 80, protocol: http, hosts: [shop.example.com, a-b.example], replicas: 3}",
        "{port: http, protocol: h2c, idle: {by: requests}, idleAfter: 1h30m, wakeTimeout: 500ms, holdTimeout: 1.5h}",
        "{protocol: tcp, listen: 5432, idle: {by: bytes}, maxHeld: 1}",
        "{protocol: tcp, listen: 5432, wake: {by: bytes}}",
        "{protocol: tls, wake: {by: bytes}}",
        "{protocol: tls, hosts: [shop.example.com], idle: {by: connections}, replicas: last, paused: true}",
        "{listen: 5432}",
        "{protocol: tcp, capture: proxy}",
        "{capture: proxy, http: {trustedHops: 1}}",
        "{protocol: tcp, listen: 1, hosts: []}",
        "{protocol: http, listen: 8100, hosts: [a.example], http: {trustedHops: 0}}",
        "{protocol: auto, listen: 8100, http: {}, ignore: [{paths: [/]}]}",
        "{listen: 8100, hosts: [a.example], http: {trustedHops: 100}, ignore: [{paths: [/]}]}",
        "{scaleTargetRef: {apiVersion: argoproj.io/v1alpha1, kind: Rollout, name: web}}",
        "{scaleTargetRef: {name: web}, idle: {by: connections}}",
        '{port: "80", idle: {}}',
        "ignore: [{paths: [/, /*, /a, /metrics/*], userAgents: [kube-probe/], answer: {status: 503, body: asleep}}]",
        '{ignore: [{sources: [10.0.0.1, 10.0.0.0/8, "fd00::/8", "::ffff:10.0.0.1"]}], protocol: tls}',
        "{ignore: [{sources: [10.0.0.1]}], protocol: tcp, listen: 5432}",
        "{ignore: []}",
        "busy: {http: /busy}",
        '{busy: {http: "/busy?kind=job", port: 8081}, protocol: tcp, listen: 5432}',
    ],
)
async def test_crd_valid_spec_is_accepted(api: Api, namespace: str, spec: str) -> None:
    await make(api, namespace, spec)


DURATION = "not a valid duration; for example 5m, 30s, or 1h30m"
RANGE = "out of range; use at least 1ms and at most 87600h"
HOST = "not a valid host name; use a-z, 0-9, -, and dots, without a port or a scheme, for example shop.example.com"
WAKE = (
    "not available for this protocol; use requests for http, h2c, and auto, connections or bytes for tcp, and bytes "
    "for tls"
)
IDLE = (
    "not available for this protocol; use requests or bytes for http, h2c, and auto, connections or bytes for tcp and "
    "tls"
)
LISTEN = "not available for tls services, which share a listener; remove listen, or set protocol: tcp"
HOPS = (
    "only for http, h2c, and auto services with a port of their own; set for example listen: 8100, or remove "
    "http.trustedHops"
)
PORT = "not a valid port; use the name or number of a port of the Service, for example http or 80"
EMPTY = "an empty list matches nothing; remove it"
IGNORE = (
    "a rule needs paths, userAgents, or sources; for example {paths: [/healthz], userAgents: [kube-probe/]}",
    "not a valid path; it starts with / and may end with *, for example /metrics/*",
    "not a valid IP address or range; for example 10.0.0.0/8 or fd00::/8",
    "only sources are available for tcp and tls services; remove paths, userAgents, and answer",
)
INVALID = {
    "apiVersion": "not a valid API group and version; for example apps/v1",
    "kind": "not a valid kind; use at most 63 letters, digits, and -, for example Deployment",
    "name": "not a valid object name; use at most 253 characters from a-z, 0-9, -, and ., for example web",
}
NO_NAMES = (
    "..",
    "../a",
    "../../victim/deployments/db",
    "%2e%2e",
    "a%2fb",
    "a?b",
    "a#b",
    "a//b",
    "/a",
    "a/",
    "a\\b",
    "a b",
    "a\n",
    "a..b",
    "-a",
    "a-",
    "\u0061\u0301",
)
"""Text that could lead elsewhere once it is part of a URL."""
BUSY = "not a valid path; start it with /, without spaces, for example /busy"
REPLICAS = "not a valid number of replicas; use last, or a number from 1 to 100000"


@pytest.mark.parametrize(
    ("spec", "where", "message"),
    [
        *(
            (f"{{{name}: {value}}}", f"spec.{name}", DURATION)
            for name in ("idleAfter", "wakeTimeout")
            for value in ('"5"', "soon", "-5m", "5d", '""', "5 m", '".5s"', '"1e3s"')
        ),
        *(
            (f"{{{name}: {value}}}", f"spec.{name}", RANGE)
            for name in ("holdTimeout", "drainTimeout")
            for value in ("0s", "87601h", "0.1ms")
        ),
        ("hosts: [Shop.example.com]", "spec.hosts[0]", HOST),
        ('hosts: [a.example, "b.example:80"]', "spec.hosts[1]", HOST),
        ('hosts: ["a.*.example"]', "spec.hosts[0]", HOST),
        ('hosts: ["https://a.example"]', "spec.hosts[0]", HOST),
        ("hosts: [a-.example]", "spec.hosts[0]", HOST),
        ("hosts: [a.example, a.example]", "spec.hosts[1]", "Duplicate value"),
        ("protocol: udp", "spec.protocol", 'supported values: "http", "h2c", "auto", "tcp", "tls"'),
        (
            "protocol: tcp",
            "spec.listen",
            "required for tcp services, which are identified by port; for example listen: 5432",
        ),
        ("{protocol: http, http: {trustedHops: 1}}", "spec.http.trustedHops", HOPS),
        ("{http: {trustedHops: 1}}", "spec.http.trustedHops", HOPS),
        ("{protocol: tcp, listen: 5432, http: {trustedHops: 1}}", "spec.http.trustedHops", HOPS),
        ("{listen: 1, http: {trustedHops: -1}}", "spec.http.trustedHops", "should be greater than or equal to 0"),
        ("{listen: 1, http: {trustedHops: 101}}", "spec.http.trustedHops", "should be less than or equal to 100"),
        ("{protocol: tls, listen: 5432}", "spec.listen", LISTEN),
        ("{capture: proxy, protocol: tls}", "spec.capture", "not available for tls services; set protocol: tcp"),
        (
            "{capture: proxy, listen: 5432}",
            "spec.listen",
            "not available with capture, which assigns a port; remove listen",
        ),
        ("{capture: always}", "spec.capture", 'Unsupported value: "always": supported values: "none", "proxy"'),
        (
            "{protocol: tcp, listen: 5432, hosts: [a.example]}",
            "spec.hosts",
            "not available for tcp services, which are identified by port; remove hosts",
        ),
        ("listen: 0", "spec.listen", "should be greater than or equal to 1"),
        ("listen: 65536", "spec.listen", "should be less than or equal to 65535"),
        ("{protocol: http, idle: {by: connections}}", "spec.idle.by", IDLE),
        ("{protocol: h2c, idle: {by: connections}}", "spec.idle.by", IDLE),
        ("{protocol: auto, idle: {by: connections}}", "spec.idle.by", IDLE),
        ("{protocol: tcp, listen: 1, idle: {by: requests}}", "spec.idle.by", IDLE),
        ("{protocol: tls, idle: {by: requests}}", "spec.idle.by", IDLE),
        ("{protocol: http, wake: {by: bytes}}", "spec.wake.by", WAKE),
        ("{protocol: tcp, listen: 1, wake: {by: requests}}", "spec.wake.by", WAKE),
        ("{protocol: tls, wake: {by: connections}}", "spec.wake.by", WAKE),
        ("wake: {by: luck}", "spec.wake.by", 'supported values: "requests", "connections", "bytes"'),
        ("readiness: luck", "spec.readiness", 'supported values: "probes", "kubernetes"'),
        ("idle: {by: luck}", "spec.idle.by", 'supported values: "requests", "connections", "bytes"'),
        ("replicas: 0", "spec.replicas", REPLICAS),
        ("replicas: 100001", "spec.replicas", REPLICAS),
        ("replicas: all", "spec.replicas", REPLICAS),
        ('replicas: "3"', "spec.replicas", REPLICAS),
        ("port: 0", "spec.port", PORT),
        ("port: 70000", "spec.port", PORT),
        ("port: Http", "spec.port", PORT),
        ('port: ""', "spec.port", PORT),
        ("maxHeld: 0", "spec.maxHeld", "should be greater than or equal to 1"),
        ("maxHeld: 1000001", "spec.maxHeld", "should be less than or equal to 1000000"),
        (
            "service: Web",
            "spec.service",
            "not a valid Service name; use at most 63 characters from a-z, 0-9, and -, for example web",
        ),
        ("scaleTargetRef: {name: ''}", "spec.scaleTargetRef.name", "should be at least 1 chars long"),
        *(
            (f"scaleTargetRef: {{{part}: {json.dumps(value)}}}", f"spec.scaleTargetRef.{part}", INVALID[part])
            for part in INVALID
            for value in NO_NAMES
        ),
        ("scaleTargetRef: {apiVersion: apps/v1/x}", "spec.scaleTargetRef.apiVersion", INVALID["apiVersion"]),
        ("scaleTargetRef: {kind: Deployment/x}", "spec.scaleTargetRef.kind", INVALID["kind"]),
        ("scaleTargetRef: {name: Web}", "spec.scaleTargetRef.name", INVALID["name"]),
        *((f"service: {json.dumps(value)}", "spec.service", "not a valid Service name") for value in NO_NAMES),
        *((f"port: {json.dumps(value)}", "spec.port", PORT) for value in NO_NAMES),
        ("paused: sometimes", "spec.paused", "must be of type boolean"),
        ("ignore: [{}]", "spec.ignore[0]", IGNORE[0]),
        ("ignore: [{answer: {status: 200}}]", "spec.ignore[0]", IGNORE[0]),
        ("ignore: [{paths: [/a], sources: []}]", "spec.ignore[0].sources", EMPTY),
        ("ignore: [{paths: []}]", "spec.ignore[0].paths", EMPTY),
        ("ignore: [{userAgents: []}]", "spec.ignore[0].userAgents", EMPTY),
        *(
            (f'ignore: [{{paths: [/a, "{path}"]}}]', "spec.ignore[0].paths[1]", IGNORE[1])
            for path in ("", "healthz", "/a*b", "*", "/a**")
        ),
        ('ignore: [{userAgents: [""]}]', "spec.ignore[0].userAgents[0]", "should be at least 1 chars long"),
        *(
            (f'ignore: [{{sources: ["{source}"]}}]', "spec.ignore[0].sources[0]", IGNORE[2])
            for source in ("", "here", "10.0.0", "10.0.0.0/", "fd00::/8/8", "10.0.0.1:80/x")
        ),
        (
            "ignore: [{paths: [/], answer: {status: 199}}]",
            "spec.ignore[0].answer.status",
            "greater than or equal to 200",
        ),
        ("ignore: [{paths: [/], answer: {status: 600}}]", "spec.ignore[0].answer.status", "less than or equal to 599"),
        (f"ignore: [{{paths: [/], answer: {{body: {'a' * 1025}}}}}]", "spec.ignore[0].answer.body", "Too long"),
        ("{protocol: tls, ignore: [{paths: [/]}]}", "spec.ignore", IGNORE[3]),
        ("{protocol: tcp, listen: 1, ignore: [{sources: [10.0.0.1], userAgents: [a]}]}", "spec.ignore", IGNORE[3]),
        ("{protocol: tcp, listen: 1, ignore: [{sources: [10.0.0.1], answer: {}}]}", "spec.ignore", IGNORE[3]),
        ("ignore: [{path: [/]}]", "spec.ignore[0].path", "unknown field"),
        ("busy: {}", "spec.busy", "required for a busy check; for example http: /busy"),
        ("busy: {port: 80}", "spec.busy", "required for a busy check; for example http: /busy"),
        *(
            (f"busy: {{http: {json.dumps(path)}}}", "spec.busy.http", BUSY)
            for path in ("", "busy", "/a b", "/a\r\nX: y")
        ),
        ("busy: {http: /, port: 0}", "spec.busy.port", "greater than or equal to 1"),
        ("busy: {command: [a]}", "spec.busy.command", "unknown field"),
        ("idleafter: 5m", "spec.idleafter", "unknown field"),
    ],
)
async def test_crd_each_invalid_spec_is_refused_with_a_remedy(
    api: Api, namespace: str, spec: str, where: str, message: str
) -> None:
    with pytest.raises(ApiError) as refusal:
        await make(api, namespace, spec)
    said = refusal.value.message
    assert message in said
    assert where in said.replace('"', "")


async def test_crd_all_problems_are_reported_together(api: Api, namespace: str) -> None:
    with pytest.raises(ApiError) as refusal:
        await make(api, namespace, "{idleAfter: soon, replicas: 0, protocol: tcp, hosts: [A]}")
    for where in ("idleAfter", "replicas", "listen", "hosts[0]", "hosts"):
        assert f"spec.{where}:" in refusal.value.message


@pytest.mark.parametrize(
    ("spec", "patch"),
    [
        ("", {"scaleTargetRef": {"name": "other"}}),
        ("", {"scaleTargetRef": {"kind": "StatefulSet"}}),
        ("", {"service": "other"}),
        ("scaleTargetRef: {name: db}", {"scaleTargetRef": {"name": None}}),
        ("scaleTargetRef: {name: db}", {"scaleTargetRef": {"apiVersion": "apps/v2"}}),
    ],
)
async def test_crd_target_is_immutable(api: Api, namespace: str, spec: str, patch: dict[str, Any]) -> None:
    await make(api, namespace, spec)
    right = "scaleTargetRef is immutable, because the target might be asleep; delete this ScaledService, which"
    with pytest.raises(ApiError, match=re.escape(right)):
        await change(api, namespace, {"spec": patch})


@pytest.mark.parametrize(
    ("spec", "patch"),
    [
        ("", {"scaleTargetRef": {"name": "web"}}),
        ("", {"service": "web"}),
        ("scaleTargetRef: {name: web}", {"service": "front"}),
        ("", {"idleAfter": "1m", "paused": True}),
    ],
)
async def test_crd_target_may_be_written_differently(
    api: Api, namespace: str, spec: str, patch: dict[str, Any]
) -> None:
    await make(api, namespace, spec)
    await change(api, namespace, {"spec": patch})


async def test_crd_status_is_read_as_it_was_written(api: Api, namespace: str) -> None:
    made = await make(api, namespace, "")
    written = yaml.safe_load(STATUS)
    unwritten = await change(api, namespace, {"status": written, "metadata": {"labels": {"a": "b"}}})
    assert unwritten["status"] == {"observedGeneration": -1}
    changed = await change(api, namespace, {"status": written, "spec": {"paused": True}}, "status")
    assert changed["status"] == written
    assert changed["spec"] == made["spec"]
    assert changed["metadata"]["generation"] == made["metadata"]["generation"] == 1
    status = decoder(ScaledService)(json.dumps(changed).encode()).status
    assert (status.state, status.target, status.zeroed, status.observed_command) == (
        "Active",
        "Deployment/web",
        True,
        "wake@now",
    )
    assert status.since and status.since.microsecond == 123456


async def test_crd_condition_needs_the_conventional_fields(api: Api, namespace: str) -> None:
    await make(api, namespace, "")
    with pytest.raises(ApiError, match="lastTransitionTime"):
        await change(api, namespace, {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}, "status")


async def test_crd_kubectl_get_shows_its_columns(api: Api, namespace: str, control_plane: Cluster) -> None:
    await make(api, namespace, "")
    await change(api, namespace, {"status": yaml.safe_load(STATUS)}, "status")
    head, row = control_plane.kubectl("get", "ssvc", "-n", namespace).splitlines()
    assert head.split() == ["NAME", "STATE", "TARGET", "READY", "AWAKE", "SINCE", "AGE"]
    assert row.split()[:4] == ["web", "Active", "Deployment/web", "True"]
    assert row.split()[5] not in ("<invalid>", "<unknown>")
    assert "web" in control_plane.kubectl("get", "zenvoy", "-n", namespace)
    assert "3" in control_plane.kubectl("get", "ssvc", "web", "-o", "wide", "-n", namespace)


async def test_crd_kubectl_explain_knows_every_field(control_plane: Cluster, api: Api) -> None:
    explained = control_plane.kubectl("explain", "ssvc.spec", "--recursive")
    fields = crd.manifest()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    assert all(name in explained for name in fields)
