"""Findings about NetworkPolicies that keep zenvoy from the pods of a service."""

from __future__ import annotations

from typing import Any

import msgspec
import yaml

from reconciler.doctor.findings import Finding, FindingCode, Severity
from reconciler.doctor.network_policies import Destination, destination, find_unadmitted
from reconciler.kubernetes.types.builtin import Pod, Service
from reconciler.kubernetes.types.network_policy import ClientPod, NetworkPolicy, PolicyRule
from reconciler.kubernetes.types.scaled_service import ScaledService

SYSTEM = {"kubernetes.io/metadata.name": "zenvoy-system"}
LABELS = {"app.kubernetes.io/name": "zenvoy", "pod-template-hash": "5d4c"}
PROXY = ClientPod("zenvoy-system", {**LABELS, "app.kubernetes.io/component": "proxy"}, SYSTEM)
RECONCILER = ClientPod("zenvoy-system", {**LABELS, "app.kubernetes.io/component": "reconciler"}, SYSTEM)
PROBE = {"httpGet": {"path": "/", "port": "health"}}
PORTS = [{"name": "http", "containerPort": 8080}, {"name": "health", "containerPort": 9000}]
SERVICE = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]}


def template(**spec: Any) -> Pod:
    container = {"name": "main", "ports": PORTS, "readinessProbe": PROBE}
    whole = {"metadata": {"labels": {"app": "web", "tier": "front"}}, "spec": {"containers": [container], **spec}}
    return msgspec.convert(whole, Pod)


def web(pods: Pod | None, service: dict[str, Any] | None = None, **spec: Any) -> Destination | None:
    """Return the destination of the ScaledService `shop/web`."""
    meta = {"name": "web", "namespace": "shop"}
    item = msgspec.convert({"metadata": meta, "spec": spec}, ScaledService)
    return destination(item, msgspec.convert({"metadata": meta, "spec": service or SERVICE}, Service), pods)


def policy(name: str, *ingress: dict[str, Any]) -> NetworkPolicy:
    meta, spec = {"name": name, "namespace": "shop"}, {"podSelector": {}, "ingress": list(ingress)}
    return msgspec.convert({"metadata": meta, "spec": spec}, NetworkPolicy)


def findings(one: Destination | None, *policies: NetworkPolicy) -> list[Finding]:
    assert one
    return [*find_unadmitted([one], policies, [PROXY, PROXY], [RECONCILER, RECONCILER])]


def admitted(component: str, *ports: int) -> dict[str, Any]:
    peer = {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app.kubernetes.io/component": component}}}
    return {"from": [peer], "ports": [{"port": port} for port in ports]}


def test_service_without_policies_has_no_finding() -> None:
    assert findings(web(template())) == []


def test_policy_that_admits_nothing_is_found_for_both() -> None:
    proxies, reconcilers = findings(web(template()), policy("deny"))
    assert (proxies.code, proxies.severity) == (FindingCode.POLICY_BLOCKS_PROXIES, Severity.PROBLEM)
    assert proxies.place == reconcilers.place == "NetworkPolicy shop/deny"
    assert "port 8080" in proxies.message and "shop/web" in proxies.message
    assert (reconcilers.code, reconcilers.severity) == (FindingCode.POLICY_BLOCKS_RECONCILERS, Severity.NOTE)
    assert "ports 8080 and 9000" in reconcilers.message


def test_remedy_is_a_rule_that_admits() -> None:
    found = findings(web(template()), policy("deny"))
    rules = []
    for one in found:
        text = one.remedy.partition("spec.ingress: ")[2].partition(" (docs/")[0]
        (rule,) = yaml.safe_load(text)
        assert msgspec.convert(rule, PolicyRule)
        rules.append(rule)
    assert findings(web(template()), policy("deny"), policy("zenvoy", *rules)) == []


def test_policy_that_admits_proxies_only_is_a_note() -> None:
    (found,) = findings(web(template()), policy("edge", admitted("proxy", 8080)), policy("deny"))
    assert (found.code, found.severity) == (FindingCode.POLICY_BLOCKS_RECONCILERS, Severity.NOTE)
    assert found.place == "NetworkPolicies shop/edge, shop/deny"


def test_policy_that_closes_the_busy_check_is_a_problem() -> None:
    rules = admitted("proxy", 8080), admitted("reconciler", 8080, 9000)
    asked = web(template(), busy={"http": "/busy", "port": 7000})
    (found,) = findings(asked, policy("edge", *rules))
    assert (found.code, found.severity) == (FindingCode.POLICY_BLOCKS_RECONCILERS, Severity.PROBLEM)
    assert "port 7000" in found.message
    assert findings(web(template(), busy={"http": "/busy"}), policy("edge", *rules)) == []


def test_probes_that_kubernetes_runs_need_no_admission() -> None:
    rules = admitted("proxy", 8080), admitted("reconciler", 8080)
    assert findings(web(template(), readiness="kubernetes"), policy("edge", *rules)) == []
    assert len(findings(web(template()), policy("edge", *rules))) == 1


def test_unknown_template_leaves_the_selector_of_the_service() -> None:
    one = web(None)
    assert one and one.pods.labels == {"app": "web"} and one.port == "http"
    assert len(findings(one, policy("deny"))) == 2
    named = {"ports": [{"port": "http"}]}
    assert findings(one, policy("edge", named)) == []


def test_key_of_a_captured_service_is_no_label_of_its_pods() -> None:
    one = web(None, {**SERVICE, "selector": {"app": "web", "zenvoy.dev/captured": "true"}})
    assert one and one.pods.labels == {"app": "web"}


def test_pods_in_the_network_of_the_node_are_left_out() -> None:
    assert web(template(hostNetwork=True)) is None


def test_service_without_selector_or_port_is_left_out() -> None:
    assert web(template(), {"ports": SERVICE["ports"]}) is None
    assert web(template(), {"selector": SERVICE["selector"]}) is None
