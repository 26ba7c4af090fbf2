"""The chart against a real API server: its objects are accepted, and its permissions are sufficient and minimal."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler.kubernetes.client.api import MERGE_PATCH, Api, connect
from reconciler.kubernetes.client.errors import ApiError
from reconciler.kubernetes.types.objects import path
from tests.cluster.chart import Chart, native, native_text
from tests.cluster.harness import Cluster, ToolFailed
from tests.cluster.rights import kubeconfig_of, may
from tests.deploy.containers import containers, documents, ports_of_proxies, unknown_options
from tests.xds.parts import until_async

ROOT = Path(__file__).parents[2]
ACCOUNT = "zenvoy-reconciler"
EVERYTHING: dict[str, Any] = {
    "commonLabels": {"team": "edge"},
    "image": {"digest": f"sha256:{'0' * 64}"},
    "imagePullSecrets": [{"name": "registry"}],
    "hostPolicy": [{"namespaces": ["team-*"], "hosts": ["*.shop.example.com", "*"], "ports": ["5432", "5400-5499"]}],
    "bareNames": True,
    "capture": {"enabled": True},
    "clusterDomain": "corp.example",
    "scaleTargets": [
        {"apiGroup": "apps", "resources": ["deployments"]},
        {"apiGroup": "example.com", "resources": ["*"]},
    ],
    "reconciler": {
        "replicas": 3,
        "listenAddress": "[::]",
        "extraArgs": ["--log=plain"],
        "extraEnv": [
            {"name": "A", "value": "b"},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        ],
        "podAnnotations": {"a": "b"},
        "podLabels": {"a": "b"},
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [
            {"operator": "Exists"},
            {"key": "a", "value": "b", "effect": "NoExecute", "tolerationSeconds": 30},
        ],
        "affinity": {
            "podAntiAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [
                    {"weight": 1, "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname", "labelSelector": {}}}
                ]
            },
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": [{"key": "gpu", "operator": "DoesNotExist"}]}]
                }
            },
        },
        "resources": {"requests": {"cpu": 0.5, "memory": "192Mi"}, "limits": {"cpu": "500m", "memory": "1e9"}},
        "priorityClassName": "system-cluster-critical",
        "serviceAccount": {"annotations": {"a": "b"}},
    },
    "proxy": {
        "http": {"servicePort": 80, "nodePort": 30080},
        "tls": {"servicePort": 443},
        "tcp": [
            {"name": "postgres", "port": 5432},
            {"name": "dns-tcp", "port": 53, "servicePort": 5353},
            {"name": "true", "port": 54},
        ],
        "service": {
            "type": "LoadBalancer",
            "annotations": {"service.beta.kubernetes.io/aws-load-balancer-type": "nlb"},
            "externalTrafficPolicy": "Local",
            "trafficDistribution": "PreferClose",
            "loadBalancerClass": "example.com/lb",
            "loadBalancerSourceRanges": ["10.0.0.0/8"],
            "ipFamilyPolicy": "PreferDualStack",
        },
        "envoy": {"concurrency": 2, "extraArgs": ["--log-format-escaped"]},
    },
    "prometheus": {
        "url": "http://prometheus.monitoring:9090",
        "headers": {"X-Scope-OrgID": "shop: a, b"},
        "bearerTokenSecret": {"name": "token"},
        "caSecret": {"name": "ca"},
    },
    "mtls": {"source": "cert-manager"},
    "monitoring": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}, "scrapeTimeout": "5s"},
        "prometheusRule": {"enabled": True, "additionalRuleLabels": {"team": "edge"}},
        "dashboards": {"enabled": True, "annotations": {"grafana_folder": "zenvoy"}},
    },
    "networkPolicy": {
        "enabled": True,
        "clientsFrom": [{"namespaceSelector": {}}, {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}],
        "metricsFrom": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
    },
}
VALUES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "tproxy": {"holdMode": "tproxy"},
    "daemonset": {"proxy": {"kind": "DaemonSet", "service": {"internalTrafficPolicy": "Local"}}},
    "no proxy": {"proxy": {"enabled": False}, "monitoring": {"serviceMonitor": {"enabled": True}}},
    "no hook, no budgets": {
        "uninstallHook": {"enabled": False},
        "reconciler": {"podDisruptionBudget": {"enabled": False}},
        "proxy": {"podDisruptionBudget": {"enabled": False}},
    },
    "cert-manager": {"mtls": {"source": "cert-manager"}},
    "plaintext": {"mtls": {"enabled": False}},
    "certificates of one's own": {
        "mtls": {
            "source": "existing",
            "existing": {"reconcilerSecret": "a", "proxySecret": "b"},
        }
    },
    "admission policy": {"admissionPolicy": {"enabled": True}},
    "everything": EVERYTHING,
}


@pytest.fixture
def chart(control_plane: Cluster, namespace: str, tmp_path: Path) -> Chart:
    return Chart(control_plane, namespace, tmp_path)


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
def test_chart_rendered_is_accepted_by_the_api_server(
    control_plane: Cluster, chart: Chart, values: dict[str, Any]
) -> None:
    text = chart.render(values)
    said = control_plane.kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", given=native_text(text))
    assert len(said.splitlines()) == len(native(text)) > 10
    for container in containers(documents(text)):
        for command in container.commands:
            assert not unknown_options(command), f"{container.owner}, {container.name}: {command[:2]}"


@pytest.mark.parametrize(
    "values", [{}, {"mtls": {"source": "cert-manager"}, "proxy": {"tcp": [{"name": "dns", "port": 53}]}}]
)
def test_chart_pods_meet_the_restricted_standard(control_plane: Cluster, chart: Chart, values: dict[str, Any]) -> None:
    """In a namespace that enforces the Pod Security Standard of that name."""
    control_plane.kubectl("label", "namespace", chart.namespace, "pod-security.kubernetes.io/enforce=restricted")
    # A controller adds it, and no pod can be created before.
    account = ("serviceaccount/default", "--namespace", chart.namespace)
    control_plane.kubectl("wait", "--for=create", *account, "--timeout=240s")
    pods = {one.owner: one.pod for one in containers(documents(chart.render(values)))}
    assert len(pods) == 3
    for number, pod in enumerate(pods.values()):
        spec = {**pod, "serviceAccountName": "default"}
        made = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"pod-{number}"}, "spec": spec}
        where = ("create", "--namespace", chart.namespace, "--dry-run=server", "-f", "-")
        control_plane.kubectl(*where, given=json.dumps(made))


def test_chart_without_pinned_ids_leaves_them_to_the_cluster(chart: Chart) -> None:
    """As for OpenShift, whose restricted-v2 assigns them, and refuses others."""
    unpinned = {"podSecurityContext": dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"))}
    text = chart.render(unpinned)
    assert not [name for name in unpinned["podSecurityContext"] if f"{name}:" in text]
    assert text.count("runAsNonRoot: true") > 3 and "seccompProfile" in text


def test_chart_tproxy_adds_its_capability_only(chart: Chart) -> None:
    added = {
        (one.owner, one.name): one.content["securityContext"]["capabilities"].get("add", [])
        for one in containers(documents(chart.render({"holdMode": "tproxy"})))
    }
    assert {place for place, capabilities in added.items() if capabilities} == {
        ("Deployment/zenvoy-proxy", "rules"),
        ("Deployment/zenvoy-proxy", "holder"),
    }
    assert added["Deployment/zenvoy-proxy", "holder"] == ["NET_ADMIN"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"reconciler": {"replica": 3}}, "additional properties 'replica' not allowed"),
        ({"reconciler": {"replicas": 0}}, "at '/reconciler/replicas': minimum: got 0, want 1"),
        ({"holdMode": "sidecar"}, "at '/holdMode': value must be one of 'anyip', 'tproxy'"),
        ({"holdPorts": "20000"}, "at '/holdPorts': '20000' does not match pattern"),
        ({"namespaces": "shop"}, "at '/namespaces': got string, want array"),
        ({"namespaces": ["Shop"]}, "at '/namespaces/0': 'Shop' does not match pattern"),
        ({"hostPolicy": [{"hosts": ["*"]}]}, "at '/hostPolicy/0': missing property 'namespaces'"),
        (
            {"hostPolicy": [{"namespaces": ["a"], "ports": ["0"]}]},
            "at '/hostPolicy/0/ports/0': '0' does not match pattern",
        ),
        ({"clusterDomain": "a_b"}, "at '/clusterDomain': 'a_b' does not match pattern"),
        ({"proxy": {"kind": "StatefulSet"}}, "at '/proxy/kind': value must be one of 'Deployment', 'DaemonSet'"),
        ({"proxy": {"tcp": [{"port": 5432}]}}, "at '/proxy/tcp/0': missing property 'name'"),
        ({"proxy": {"tcp": [{"name": "http", "port": 5432}]}}, "at '/proxy/tcp/0/name'"),
        ({"proxy": {"tcp": [{"name": "a", "port": 9902}]}}, "port 9902 is reserved in proxy pods"),
        ({"proxy": {"tcp": [{"name": "a", "port": 10000}]}}, "the ports in tcp must differ"),
        ({"prometheus": {"url": "prometheus:9090"}}, "at '/prometheus/url'"),
        ({"prometheus": {"url": "http://me:secret@p:9090"}}, "prometheus.url: must not contain a user or a password"),
        (
            {
                "prometheus": {"url": "http://p:9090", "scrapeInterval": "15s"},
                "monitoring": {"serviceMonitor": {"enabled": True, "interval": "1m"}},
            },
            "monitoring.serviceMonitor.interval: 1m differs from prometheus.scrapeInterval, 15s",
        ),
        ({"prometheus": {"scrapeInterval": "15"}}, "at '/prometheus/scrapeInterval': '15' does not match pattern"),
        ({"mtls": {"source": "vault"}}, "at '/mtls/source': value must be one of"),
        ({"mtls": {"source": "existing"}}, "mtls.existing.reconcilerSecret: required"),
        ({"scaleTargets": []}, "at '/scaleTargets': minItems: got 0, want 1"),
        ({"reconciler": {"sampleInterval": "0s"}}, "at '/reconciler/sampleInterval'"),
        ({"prometheus": {"scrapeInterval": "0m0s"}}, "at '/prometheus/scrapeInterval'"),
        ({"holdPorts": "1-99999"}, "at '/holdPorts': '1-99999' does not match pattern"),
        ({"holdPorts": "300-200"}, "holdPorts: 300-200 ends before it begins; swap the ports"),
        ({"reconciler": {"statsPorts": "9910-9902"}}, "reconciler.statsPorts: 9910-9902 ends before it begins"),
        ({"hostPolicy": [{"namespaces": ["a"], "ports": ["90-80"]}]}, "hostPolicy[0].ports[0]: 90-80 ends before"),
        ({"proxy": {"drain": {"seconds": 4}}}, "proxy.drain.settleSeconds: 5 exceeds proxy.drain.seconds, 4"),
        (
            {"proxy": {"tcp": [{"name": "a", "port": 5432}, {"name": "a", "port": 5433}]}},
            "proxy.tcp: two ports have the same name",
        ),
        (
            {"proxy": {"tcp": [{"name": "a", "port": 5432, "servicePort": 10000}]}},
            "the service ports of http, tls, and tcp must differ",
        ),
        (
            {"proxy": {"http": {"nodePort": 30000}, "tls": {"nodePort": 30000}}},
            "the node ports of http, tls, and tcp must differ",
        ),
        ({"commonLabels": {"team": "-edge"}}, "at '/commonLabels/team'"),
        ({"podSecurityContext": {"runAsUser": 0}}, "at '/podSecurityContext/runAsUser': minimum: got 0, want 1"),
        ({"proxy": {"serviceAccount": {"name": "A_b"}}}, "at '/proxy/serviceAccount/name'"),
        ({"proxy": {"service": {"loadBalancerSourceRanges": ["10.0.0.0"]}}}, "loadBalancerSourceRanges/0'"),
        ({"image": {"digest": "abc"}}, "at '/image/digest': 'abc' does not match pattern"),
        ({"proxy": {"http": {"nodePort": 30080}}}, "with ClusterIP, nodePort cannot be set; use the type NodePort or"),
        ({"proxy": {"service": {"externalTrafficPolicy": "Local"}}}, "with ClusterIP, externalTrafficPolicy cannot be"),
        (
            {"proxy": {"service": {"internalTrafficPolicy": "Local"}}},
            "proxy.service.internalTrafficPolicy: with Local, pods on nodes without a proxy are refused",
        ),
        (
            {"proxy": {"service": {"type": "NodePort", "loadBalancerSourceRanges": ["10.0.0.0/8"]}}},
            "with NodePort, loadBalancerSourceRanges cannot be set; use the type LoadBalancer",
        ),
        (
            {"reconciler": {"resources": {"requests": {"memory": "2Gi"}}}},
            "reconciler.resources: the request of memory, 2Gi, exceeds its limit, 1Gi; lower the request",
        ),
        (
            {"proxy": {"keeper": {"resources": {"limits": {"cpu": "9m"}}}}},
            "proxy.keeper.resources: the request of cpu, 10m, exceeds its limit, 9m",
        ),
        (
            {"holdMode": "tproxy", "holdPorts": "9000-12000"},
            "holdPorts: 9000-12000 has port 10000, which proxy pods use; choose another range",
        ),
        ({"holdMode": "tproxy", "holdPorts": "20000-20000"}, "holdPorts: 20000-20000 is one port"),
        (
            {"capture": {"enabled": True, "ports": "9000-12000"}},
            "capture.ports: 9000-12000 has port 10000, which proxy pods use; choose another range",
        ),
        ({"capture": {"enabled": True, "ports": "13000-12000"}}, "capture.ports"),
        (
            {"holdMode": "tproxy", "capture": {"enabled": True, "ports": "19000-20001"}},
            "capture.ports: 19000-20001 overlaps holdPorts, 20000-32767; choose another range",
        ),
        (
            {"mtls": {"source": "cert-manager", "certManager": {"duration": "90m", "renewBefore": "1h30m"}}},
            "mtls.certManager.renewBefore: 1h30m is not less than duration, 90m; lower it",
        ),
        (
            {"monitoring": {"serviceMonitor": {"enabled": True, "scrapeTimeout": "1m"}}},
            "monitoring.serviceMonitor.scrapeTimeout: 1m exceeds the interval, 15s; lower it",
        ),
    ],
)
def test_chart_invalid_values_are_refused(chart: Chart, values: dict[str, Any], said: str) -> None:
    with pytest.raises(ToolFailed) as failed:
        chart.render(values)
    assert said in str(failed.value)


REFUSED_BY_KUBERNETES: dict[str, Any] = {
    "nameOverride": "Web_1",
    "fullnameOverride": "1st",
    "commonLabels": {"app.kubernetes.io/name": "web"},
    "image": {"repository": "https://ghcr.io/zenvoy/zenvoy", "tag": "0.1 rc"},
    "podSecurityContext": {"fsGroup": 2**31},
    "scaleTargets": [{"apiGroup": "apps/v1", "resources": ["deployments"]}],
    "reconciler": {
        "listenAddress": "localhost",
        "minReadySeconds": 600,
        "podLabels": {"a b": "c"},
        "podAnnotations": {"a/b/c": "d"},
        "serviceAccount": {"annotations": {"-a": "b"}},
        "extraEnv": [{"name": "A", "value": 5}],
        "nodeSelector": {"a": "b c"},
        "tolerations": [{"key": "a", "operator": "Maybe"}, {"operator": "Exists", "value": "a"}],
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"labelSelector": {}}]}},
        "resources": {"limits": {"cpu": "1 core"}, "limit": {}},
    },
    "proxy": {
        "tcp": [{"name": "5432", "port": 5432}, {"name": "a--b", "port": 5433}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {}}},
        "envoy": {"resources": {"requests": {"memory": "-1"}}},
        "service": {"labels": {"a": "b c"}, "loadBalancerClass": "a b"},
    },
    "monitoring": {
        "serviceMonitor": {"namespace": "Metrics"},
        "prometheusRule": {"additionalRuleLabels": {"severity-level": "a"}},
    },
    "networkPolicy": {"clientsFrom": [{"ipBlock": {"cidr": "10.0.0.0"}}], "metricsFrom": [{}]},
}
"""Values that the API server would refuse, or a program would not start with."""
REFUSED_AT = (
    "/nameOverride", "/fullnameOverride", "/commonLabels/app.kubernetes.io~1name", "/image/repository", "/image/tag",
    "/podSecurityContext/fsGroup", "/scaleTargets/0/apiGroup", "/reconciler/listenAddress",
    "/reconciler/minReadySeconds", "/reconciler/podLabels", "/reconciler/podAnnotations",
    "/reconciler/serviceAccount/annotations", "/reconciler/extraEnv/0/value", "/reconciler/nodeSelector/a",
    "/reconciler/tolerations/0/operator", "/reconciler/tolerations/1/value",
    "/reconciler/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution/0",
    "/reconciler/resources/limits/cpu", "/reconciler/resources", "/proxy/tcp/0/name", "/proxy/tcp/1/name",
    "/proxy/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution",
    "/proxy/envoy/resources/requests/memory", "/proxy/service/labels/a", "/proxy/service/loadBalancerClass",
    "/monitoring/serviceMonitor/namespace", "/monitoring/prometheusRule/additionalRuleLabels",
    "/networkPolicy/clientsFrom/0/ipBlock/cidr", "/networkPolicy/metricsFrom/0",
)  # fmt: skip


def test_chart_values_that_kubernetes_refuses_are_all_named(chart: Chart) -> None:
    with pytest.raises(ToolFailed) as failed:
        chart.render(REFUSED_BY_KUBERNETES)
    assert not [place for place in REFUSED_AT if f"at '{place}': " not in str(failed.value)], failed.value


def test_chart_names_ports_of_proxies_by_number(chart: Chart) -> None:
    """Envoy is a sidecar, and Kubernetes before 1.33 and network plugins do not resolve the names of its ports."""
    ports = ports_of_proxies(documents(chart.render(EVERYTHING)))
    assert {port for port in ports if isinstance(port, int)} == {10000, 10443, 5432, 53, 54, 12000, 9902, 18081}
    assert len({*ports}) == 8


def test_chart_leaves_the_number_of_proxies_to_an_autoscaler(chart: Chart) -> None:
    objects = documents(chart.render({"proxy": {"replicas": None}}))
    [proxy] = [one for one in objects if one["metadata"]["name"] == "zenvoy-proxy" and one["kind"] == "Deployment"]
    assert "replicas" not in proxy["spec"]


def test_chart_daemon_set_has_no_disruption_budget(chart: Chart) -> None:
    """Kubernetes cannot calculate one, and refuses the eviction of each pod that it selects."""

    def budgets(kind: str) -> set[str]:
        objects = documents(chart.render({"proxy": {"kind": kind}}))
        return {one["metadata"]["name"] for one in objects if one["kind"] == "PodDisruptionBudget"}

    assert budgets("Deployment") == {"zenvoy-proxy", "zenvoy-reconciler"}
    assert budgets("DaemonSet") == {"zenvoy-reconciler"}


def test_chart_own_labels_replace_common_ones(chart: Chart) -> None:
    """A key that is there twice is an error for kustomize."""
    own, labelled = {"labels": {"team": "own"}}, {"podLabels": {"team": "own"}}
    text = chart.render(
        {
            "commonLabels": {"team": "all", "tier": "edge"},
            "reconciler": labelled,
            "proxy": {**labelled, "service": own},
            "monitoring": {
                name: {"enabled": True, **own} for name in ("serviceMonitor", "prometheusRule", "dashboards")
            },
        }
    )
    for document in yaml.compose_all(text):
        assert not [*repeated_keys(document)]
    services = {one["metadata"]["name"]: one for one in documents(text) if one["kind"] == "Service"}
    labels = [services[name]["metadata"]["labels"] for name in ("zenvoy-proxy", "zenvoy-reconciler")]
    assert [(one["team"], one["tier"]) for one in labels] == [("own", "edge"), ("all", "edge")]


def repeated_keys(node: yaml.Node | None) -> Iterator[str]:
    """Yield the keys that a mapping of the document has more than once."""
    if isinstance(node, yaml.MappingNode):
        keys = Counter(key.value for key, _ in node.value)
        yield from (key for key, times in keys.items() if times > 1)
    for inner in node.value if isinstance(node, yaml.CollectionNode) else ():
        for one in inner if isinstance(inner, tuple) else (inner,):
            yield from repeated_keys(one)


def test_chart_admission_policy_needs_a_newer_kubernetes(chart: Chart) -> None:
    with pytest.raises(ToolFailed, match=r"needs Kubernetes 1\.30, and this is v1\.29\.0"):
        chart.render({"admissionPolicy": {"enabled": True}}, "1.29.0")
    assert chart.render({"admissionPolicy": {"enabled": True}}, "1.30.0-gke.100")


def test_chart_release_that_cannot_name_a_service_is_refused(chart: Chart) -> None:
    chart.release = "2nd.try"
    with pytest.raises(ToolFailed, match=r"2nd\.try-zenvoy cannot begin the name of a Service; set fullnameOverride"):
        chart.render()
    assert chart.render({"fullnameOverride": "second"})


def test_chart_names_of_digits_stay_text(control_plane: Cluster, chart: Chart) -> None:
    """YAML would read them as numbers."""
    names = {"reconciler": {"priorityClassName": "123", "serviceAccount": {"name": "456"}}}
    chart.release, chart.namespace = "789", "1000"
    text = chart.render({"fullnameOverride": "zenvoy", **names, "namespaces": ["2000"], "mtls": {"enabled": False}})
    found = {one["metadata"]["namespace"] for one in documents(text) if "namespace" in one["metadata"]}
    assert found == {"1000", "2000"}
    assert {one["metadata"]["labels"]["app.kubernetes.io/instance"] for one in documents(text)} == {"789"}
    assert {one.pod["priorityClassName"] for one in containers(documents(text)) if "reconciler" in one.owner} == {"123"}


def test_install_yaml_equals_the_rendered_chart(control_plane: Cluster) -> None:
    """If not: make install-yaml."""
    rendered = control_plane.run(ROOT / "scripts" / "install-yaml", "--print")
    assert rendered == (ROOT / "deploy" / "install.yaml").read_text()


def test_install_yaml_is_accepted_by_the_api_server(control_plane: Cluster) -> None:
    text = (ROOT / "deploy" / "install.yaml").read_text()
    [place] = [one["metadata"]["name"] for one in documents(text) if one["kind"] == "Namespace"]
    control_plane.kubectl("create", "namespace", place)
    try:
        strict = ("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-")
        assert len(control_plane.kubectl(*strict, given=text).splitlines()) == len(documents(text))
    finally:
        control_plane.kubectl("delete", "namespace", place)


def test_chart_rules_equal_the_tested_ones(chart: Chart) -> None:
    rendered = documents(chart.render({"monitoring": {"prometheusRule": {"enabled": True}}}))
    [made] = [one for one in rendered if one["kind"] == "PrometheusRule"]
    kept = [
        documents((ROOT / "deploy" / "prometheus" / f"{name}.yaml").read_text()) for name in ("recording", "alerts")
    ]
    assert made["spec"]["groups"] == [group for [file] in kept for group in file["groups"]]


def test_chart_dashboards_equal_the_tested_ones(chart: Chart) -> None:
    rendered = documents(chart.render({"monitoring": {"dashboards": {"enabled": True}}}))
    maps = [one for one in rendered if one["metadata"]["labels"].get("grafana_dashboard") == "1"]
    shipped = {name: text for one in maps for name, text in one["data"].items()}
    folder = ROOT / "grafana" / "dashboards"
    assert shipped == {file.name: file.read_text() for file in folder.glob("*.json")}


def test_chart_monitor_interval_equals_the_reconcilers(chart: Chart) -> None:
    values = {"prometheus": {"url": "http://p:9090", "scrapeInterval": "7s"}}
    rendered = documents(chart.render({**values, "monitoring": {"serviceMonitor": {"enabled": True}}}))
    endpoints = [e for one in rendered if one["kind"] == "ServiceMonitor" for e in one["spec"]["endpoints"]]
    assert {endpoint["interval"] for endpoint in endpoints} == {"7s"}
    [reconciler] = [one for one in containers(rendered) if one.name == "reconciler"]
    assert "--scrape-interval=7s" in reconciler.content["args"]


def test_chart_monitors_select_the_pods_of_one_service(chart: Chart) -> None:
    """A draining proxy still counts connections, so it has to be scraped."""
    rendered = documents(chart.render({"monitoring": {"serviceMonitor": {"enabled": True}}}))
    monitors = [one for one in rendered if one["kind"] == "ServiceMonitor"]
    assert len(monitors) == 2
    for monitor in monitors:
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        [service] = [o for o in rendered if o["kind"] == "Service" and wanted <= o["metadata"]["labels"].items()]
        assert (service["spec"]["clusterIP"], service["spec"]["publishNotReadyAddresses"]) == ("None", True)
        assert monitor["spec"]["namespaceSelector"] == {"matchNames": [service["metadata"]["namespace"]]}
        ports = {port["name"] for port in service["spec"]["ports"]}
        assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= ports


# ---- installed ----


@pytest.fixture
def installed(chart: Chart) -> Iterator[Callable[..., str]]:
    """Install the release; it is removed after the test."""

    def install(values: dict[str, Any] | None = None) -> str:
        return chart.install(values)

    yield install
    chart.uninstall()


def test_chart_second_release_in_a_namespace_is_refused(
    control_plane: Cluster, chart: Chart, tmp_path: Path, installed: Callable[..., str]
) -> None:
    installed()
    with pytest.raises(ToolFailed, match=f"namespace {chart.namespace} has the release zenvoy of zenvoy already"):
        Chart(control_plane, chart.namespace, tmp_path, "other").install()
    chart.upgrade()


ALLOWED = (
    "list scaledservices.zenvoy.dev",
    "watch scaledservices.zenvoy.dev",
    "create scaledservices.zenvoy.dev",
    "delete scaledservices.zenvoy.dev",
    "patch scaledservices.zenvoy.dev",
    "patch scaledservices.zenvoy.dev/status",
    "watch services",
    "watch pods",
    "watch events",
    "watch endpointslices.discovery.k8s.io",
    "create events.events.k8s.io",
    "patch events.events.k8s.io",
    "watch deployments.apps",
    "watch replicasets.apps",
    "get statefulsets.apps/scale",
    "patch deployments.apps/scale",
)
IN_THE_CLUSTER = ("list namespaces", "watch namespaces")
"""With a ClusterRole only: their names tell the names of Services from domains."""
REFUSED = (
    "get secrets",
    "list secrets",
    "get configmaps",
    "create pods",
    "delete pods",
    "create pods/exec",
    "patch services",
    "patch deployments.apps",
    "update deployments.apps",
    "delete deployments.apps",
    "update deployments.apps/scale",
    "patch daemonsets.apps",
    "patch replicationcontrollers/scale",
    "create rolebindings.rbac.authorization.k8s.io",
    "get namespaces",
    "create namespaces",
    "list nodes",
    "impersonate serviceaccounts",
)


async def test_chart_permissions_are_minimal(api: Api, chart: Chart, installed: Callable[..., str]) -> None:
    installed()
    for request in (*ALLOWED, *IN_THE_CLUSTER):
        assert await may(api, ACCOUNT, chart.namespace, f"{request} in shop"), request
    for request in REFUSED:
        assert not await may(api, ACCOUNT, chart.namespace, f"{request} in shop"), request
    own = chart.namespace
    lease = "leases.coordination.k8s.io"
    for verb in ("get", "update", "patch"):
        assert await may(api, ACCOUNT, own, f"{verb} {lease} in {own}", name="zenvoy")
        assert not await may(api, ACCOUNT, own, f"{verb} {lease} in {own}", name="another")
    assert await may(api, ACCOUNT, own, f"create {lease} in {own}")
    assert not await may(api, ACCOUNT, own, f"create {lease} in shop")
    for secret in ("zenvoy-self-issued-ca", "zenvoy-proxy-self-issued"):
        for verb in ("list", "watch", "patch"):
            assert await may(api, ACCOUNT, own, f"{verb} secrets in {own}", name=secret)
            assert not await may(api, ACCOUNT, own, f"{verb} secrets in {own}", name="another")
            assert not await may(api, ACCOUNT, own, f"{verb} secrets in shop", name=secret)
        assert not await may(api, ACCOUNT, own, f"delete secrets in {own}", name=secret)
    assert not await may(api, ACCOUNT, own, f"create secrets in {own}")
    for request in (*ALLOWED, *REFUSED):
        assert not await may(api, "zenvoy-proxy", own, f"{request} in {own}"), request


async def test_chart_permissions_for_captures_follow_the_value(
    api: Api, chart: Chart, installed: Callable[..., str]
) -> None:
    kinds = ("services", "endpointslices.discovery.k8s.io")
    requests = [f"{verb} {kind} in shop" for verb in ("create", "patch", "delete") for kind in kinds]
    installed()
    for request in requests:
        assert not await may(api, ACCOUNT, chart.namespace, request), request
    chart.upgrade({"capture": {"enabled": True}})
    for request in requests:
        await until_async(partial(may, api, ACCOUNT, chart.namespace, request), request)


async def test_chart_permissions_are_in_the_named_namespaces(
    control_plane: Cluster, api: Api, chart: Chart, installed: Callable[..., str]
) -> None:
    installed({"namespaces": [chart.namespace]})
    assert "zenvoy-reconciler" not in control_plane.kubectl("get", "clusterrolebindings", "-o", "name")
    for request in ALLOWED:
        assert await may(api, ACCOUNT, chart.namespace, f"{request} in {chart.namespace}"), request
        assert not await may(api, ACCOUNT, chart.namespace, f"{request} in shop"), request
        assert not await may(api, ACCOUNT, chart.namespace, request), request


async def test_chart_scale_targets_follow_the_values(api: Api, chart: Chart, installed: Callable[..., str]) -> None:
    installed({"scaleTargets": [{"apiGroup": "example.com", "resources": ["widgets"]}]})
    assert await may(api, ACCOUNT, chart.namespace, "patch widgets.example.com/scale in shop")
    assert await may(api, ACCOUNT, chart.namespace, "watch widgets.example.com in shop")
    assert not await may(api, ACCOUNT, chart.namespace, "patch deployments.apps/scale in shop")


async def test_chart_admission_policy_limits_what_is_scaled(
    control_plane: Cluster, api: Api, chart: Chart, installed: Callable[..., str], tmp_path: Path
) -> None:
    installed({"admissionPolicy": {"enabled": True, "maxReplicas": 5}})
    control_plane.kubectl("create", "deployment", "web", "--image=web", "--replicas=0", "-n", chart.namespace)
    program = await connect(kubeconfig_of(control_plane, chart.namespace, ACCOUNT, tmp_path))
    where = path("apps/v1", "deployments", chart.namespace, "web", "scale")

    async def denied(replicas: int, client: Api = program) -> str:
        """Return why the scale is denied; empty if it is accepted."""
        try:
            await client.patch(where, {"spec": {"replicas": replicas}}, MERGE_PATCH)
        except ApiError as error:
            return error.message
        return ""

    async def eventually(wanted: str, replicas: int) -> bool:
        found = await denied(replicas)
        return wanted in found if wanted else not found

    try:
        await until_async(lambda: eventually("no params found", 2), "the policy is in force", 240)
        item = {"apiVersion": "zenvoy.dev/v1alpha1", "kind": "ScaledService", "metadata": {"name": "web"}}
        await api.call("POST", path("zenvoy.dev/v1alpha1", "scaledservices", chart.namespace), item)
        await until_async(lambda: eventually("", 2), "its target may be scaled", 240)
        assert "admissionPolicy.maxReplicas" in await denied(6)
        assert not await denied(6, api), "others are not limited"
    finally:
        await program.close()


async def test_chart_permissions_run_the_program(
    control_plane: Cluster, chart: Chart, installed: Callable[..., str], tmp_path: Path
) -> None:
    installed()
    program = await connect(kubeconfig_of(control_plane, chart.namespace, ACCOUNT, tmp_path))
    try:
        await program.get(path("zenvoy.dev/v1alpha1", "scaledservices"))
        with pytest.raises(ApiError) as refused:
            await program.get(path("v1", "secrets"))
        assert refused.value.status == 403
    finally:
        await program.close()


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
def test_chart_rendered_twice_is_equal(chart: Chart, values: dict[str, Any]) -> None:
    assert chart.render(values) == chart.render(values)


def test_chart_uninstall_job_has_permissions(chart: Chart) -> None:
    rendered = documents(chart.render({"namespaces": ["shop", "blog"]}))
    [job] = [one for one in rendered if one["metadata"].get("annotations", {}).get("helm.sh/hook") == "pre-delete"]
    commands = [" ".join(one.content["args"]) for one in containers([job])]
    assert [command.partition("--namespace=")[2] for command in commands] == ["shop", "blog"]
    annotations = job["spec"]["template"]["metadata"]["annotations"]
    assert annotations == {"sidecar.istio.io/inject": "false", "linkerd.io/inject": "disabled"}
    roles = {
        (one["kind"], one["metadata"]["namespace"])
        for one in rendered
        if "Role" in one["kind"] and "namespace" in one["metadata"]
    }
    assert {(kind, place) for kind in ("Role", "RoleBinding") for place in ("shop", "blog")} <= roles


def test_chart_notes_name_the_next_step(chart: Chart, installed: Callable[..., str]) -> None:
    said = installed({"proxy": {"replicas": 1}, "mtls": {"enabled": False}})
    assert "kubectl label service web zenvoy.dev/enabled=true" in said
    assert f"http://zenvoy-proxy.{chart.namespace}:10000/" in said
    assert "with one replica of the proxy" in said
    assert "WARNING: mtls.enabled=false opens the gRPC port" in said
