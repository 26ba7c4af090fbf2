"""Findings of `zenvoy doctor` with a real API server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler.kubernetes.client.api import JSON_PATCH, MERGE_PATCH, Api
from reconciler.kubernetes.client.errors import ApiError
from reconciler.kubernetes.types.objects import micro_time, path
from reconciler.kubernetes.types.scaled_service import PLURAL
from tests.cluster.cli.parts import (
    CONTROLLER_SECONDS,
    Cli,
    Done,
    FakeController,
    Objects,
    condition,
    deployment,
    entered,
)
from tests.cluster.crd import APPLY_PATCH
from tests.cluster.harness import Cluster
from tests.cluster.namespaces import new_namespace
from tests.cluster.rights import may
from tests.xds.parts import until_async

CHART = Path(__file__).parents[3] / "deploy" / "chart"
RBAC = "rbac.authorization.k8s.io/v1"
SAMPLE = {"source": "Envoy's statistics", "takenAt": "2026-01-02T03:04:05+00:00", "ageSeconds": 1.0, "unknown": None}
ENVOY = {"id": "edge-1", "since": "2026-01-02T03:04:05+00:00", "mode": "delta", "versions": {}, "nacks": 0}
OVERVIEW: dict[str, Any] = {
    "ready": True,
    "services": 1,
    "sample": SAMPLE,
    "envoys": [{**ENVOY, "lastNack": None}],
    "holders": [{"id": "holder-1", "mode": "anyip", "connected": True}],
    "standing": None,
}
SCALED_OBJECTS = {
    "kind": "CustomResourceDefinition",
    "apiVersion": "apiextensions.k8s.io/v1",
    "metadata": {"name": "scaledobjects.keda.sh"},
    "spec": {
        "group": "keda.sh",
        "scope": "Namespaced",
        "names": {"kind": "ScaledObject", "plural": "scaledobjects"},
        "versions": [
            {
                "name": "v1alpha1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}


class Installed:
    """zenvoy as the chart installs it, without its processes, and a controller that answers `OVERVIEW`."""

    def __init__(self, cli: Cli, objects: Objects, controller: FakeController) -> None:
        self.objects, self._cli, self.controller = objects, cli, controller
        self.release = f"zenvoy-{objects.namespace}"
        self.account = f"{self.release}-reconciler"
        self.rights: list[dict[str, Any]] = []
        self.arguments = ['--host-policy=[{"namespaces":["*"],"hosts":["*"],"ports":["1-65535"]}]']

    async def install(self, cluster: Cluster) -> None:
        system = self.objects.namespace
        wanted = ("-s", "templates/rbac.yaml", "--kube-version", "1.34")
        rendered = cluster.run("helm", "template", self.release, CHART, "-n", system, *wanted)
        for one in filter(None, yaml.safe_load_all(rendered)):
            await self._apply(one)
            if one["kind"] == "ClusterRole" and one["metadata"]["name"] == self.account:
                self.rights = one["rules"]
        await self.until_may("list namespaces")
        await self.until_may(f"create leases.coordination.k8s.io in {system}")
        await self.runs_with(self.arguments)
        lease = {"holderIdentity": "zenvoy-0", "leaseDurationSeconds": 10, "renewTime": micro_time(4e9)}
        body = {"kind": "Lease", "metadata": {"name": "zenvoy"}, "spec": lease}
        await self.objects.make("coordination.k8s.io/v1", "leases", body)
        self.controller.answers = {"/v1/overview": OVERVIEW}

    async def until_may(self, request: str, account: str = "", *, granted: bool = True) -> None:
        """Wait until the API server applies a change of an account's rights, by default the controller's."""
        api, system, who = self.objects.api, self.objects.namespace, account or self.account

        async def is_applied() -> bool:
            return await may(api, who, system, request) is granted

        await until_async(is_applied, f"{who} may {request}: {granted}", CONTROLLER_SECONDS)

    async def runs_with(self, arguments: list[str]) -> None:
        """Create a pod of the controller with these arguments."""
        container = {"name": "reconciler", "image": "example/zenvoy:1", "args": arguments}
        spec = {"serviceAccountName": self.account, "containers": [container]}
        labels = {"app.kubernetes.io/component": "reconciler"}
        await self.objects.pod({"metadata": {"name": "zenvoy-0", "labels": labels}, "spec": spec})
        await self.pod({"conditions": [{"type": "Ready", "status": "True"}], "phase": "Running"})

    async def run_with(self, arguments: list[str]) -> None:
        """Replace the running controller by one with these settings."""
        where = path("v1", "pods", self.objects.namespace, "zenvoy-0")
        await self.objects.api.call("DELETE", where, {"gracePeriodSeconds": 0})
        await self.runs_with(arguments)

    async def pod(self, status: dict[str, Any]) -> None:
        where = path("v1", "pods", self.objects.namespace, "zenvoy-0", "status")
        await self.objects.api.patch(where, {"status": status}, MERGE_PATCH)

    async def proxy(self, name: str, status: dict[str, Any]) -> None:
        """Create a pod like those of the chart's proxy."""
        meta = {"name": name, "labels": {"app.kubernetes.io/component": "proxy"}}
        spec = {"containers": [{"name": "envoy", "image": "example/envoy:1"}]}
        await self.objects.pod({"metadata": meta, "spec": spec})
        where = path("v1", "pods", self.objects.namespace, name, "status")
        await self.objects.api.patch(where, {"status": status}, MERGE_PATCH)

    async def _apply(self, wanted: dict[str, Any]) -> None:
        meta = wanted["metadata"]
        where = path(wanted["apiVersion"], f"{wanted['kind'].lower()}s", meta.get("namespace"), meta["name"])
        await self.objects.api.call("PATCH", where, wanted, APPLY_PATCH, {"fieldManager": "tests", "force": "true"})

    async def uninstall(self) -> None:
        """Delete the objects that are in no namespace."""
        for plural, names in (
            ("clusterrolebindings", [self.account]),
            ("clusterroles", [self.account, f"{self.release}-edit", f"{self.release}-view"]),
        ):
            for name in names:
                await self.objects.api.call("DELETE", path(RBAC, plural, name=name))

    async def doctor(self, *arguments: str, code: int = 0) -> Done:
        namespace = self.objects.namespace
        where = ("-n", namespace, "--system-namespace", namespace, "--controller", self.controller.url)
        return await self._cli("doctor", *where, *arguments, code=code)

    async def findings(self, code: int = 1) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.doctor("-o", "json", code=code)).json["findings"]
        assert all(finding[key] for finding in found for key in ("code", "remedy", "message", "place", "severity"))
        return found

    async def found(self, code: int = 1) -> dict[str, Any]:
        """Return the only finding."""
        (finding,) = await self.findings(code)
        return finding


@pytest.fixture
async def installed(
    cli: Cli,
    objects: Objects,
    controller: FakeController,
    control_plane: Cluster,
) -> AsyncIterator[Installed]:
    found = Installed(cli, objects, controller)
    await found.install(control_plane)
    yield found
    await found.uninstall()


async def test_doctor_healthy_cluster_has_no_findings(installed: Installed) -> None:
    ready = [condition("Ready", "True", "ScaledToZero"), condition("Stalled", "False", "AsExpected")]
    await installed.objects.scaled_service(
        "web", **entered("ScaledToZero", "idle for 5m", conditions=ready, observedGeneration=1)
    )
    await installed.objects.deployment("web", None)
    done = await installed.doctor()
    lines = done.out.splitlines()
    assert lines[-1] == "no problems, no notes"
    assert [line.split()[:2] for line in lines[:-2]] == [
        ["ok", check]
        for check in (
            "definition",
            "controller",
            "permissions",
            "Envoys",
            "holders",
            "samples",
            "certificates",
            "busy",
            "proxies",
            "services",
            "conflicts",
            "routes",
            "endpoints",
            "network",
        )
    ]
    assert "1 of 1 pod ready, zenvoy-0 leads" in done.out
    assert "1 ScaledService" in done.out and "0 HPAs, 0 ScaledObjects, 1 target" in done.out
    assert (await installed.doctor("-o", "json")).json["findings"] == []


async def test_doctor_missing_crd_has_a_remedy(cli: Cli, api: Api, definition: None) -> None:
    where = path("apiextensions.k8s.io/v1", "customresourcedefinitions", name=f"{PLURAL}.zenvoy.dev")
    whole = json.loads(await api.get(where))
    fields = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties"
    await api.patch(where, [{"op": "remove", "path": f"{fields}/paused"}], JSON_PATCH)
    try:
        done = await cli("doctor", "-n", cli.namespace, "--system-namespace", cli.namespace, "-o", "json", code=1)
    finally:
        schema = whole["spec"]["versions"][0]["schema"]
        await api.patch(where, [{"op": "replace", "path": "/spec/versions/0/schema", "value": schema}], JSON_PATCH)
    found = [finding for finding in done.json["findings"] if finding["check"] == "definition"]
    assert found[0]["code"] == "DefinitionOutdated"
    assert "spec.paused" in found[0]["message"] and "deploy/chart/crds" in found[0]["remedy"]
    assert {"ControllerMissing", "NoLeader"} <= {finding["code"] for finding in done.json["findings"]}


async def test_missing_permission_is_named(installed: Installed) -> None:
    rules = [rule for rule in installed.rights if "deployments/scale" not in rule["resources"]]
    for rule in rules:
        rule["resources"] = [resource for resource in rule["resources"] if resource != "pods"]
    where = path(RBAC, "clusterroles", name=installed.account)
    await installed.objects.api.patch(where, {"rules": rules}, MERGE_PATCH)
    await installed.until_may("list pods", granted=False)
    await installed.objects.scaled_service(
        "web", **entered("Idle", conditions=[condition("Ready", "True", "Idle")], observedGeneration=1)
    )
    found = await installed.findings()
    assert {(finding["check"], finding["code"]) for finding in found} == {("permissions", "PermissionMissing")}
    assert [finding["message"].partition(":")[0] for finding in found] == [
        "it may not get deployments/scale.apps in all namespaces",
        "it may not list pods in all namespaces",
        "it may not patch deployments/scale.apps in all namespaces",
        "it may not watch pods in all namespaces",
    ]
    assert "scaleTargets" in found[0]["remedy"] and "helm upgrade" in found[1]["remedy"]


async def test_doctor_missing_permissions_for_captures_are_named(installed: Installed) -> None:
    await installed.run_with([*installed.arguments, "--capture-ports=12000-15999"])
    assert {finding["message"].partition(":")[0] for finding in await installed.findings()} == {
        f"it may not {verb} {kind} in all namespaces"
        for verb in ("create", "patch", "delete")
        for kind in ("services", "endpointslices.discovery.k8s.io")
    }


async def test_doctor_unready_pod_has_a_reason(installed: Installed) -> None:
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    container = {"name": "reconciler", "state": waiting, "image": "", "imageID": "", "ready": False, "restartCount": 0}
    await installed.pod({"conditions": [{"type": "Ready", "status": "False"}], "containerStatuses": [container]})
    finding = await installed.found()
    assert (finding["code"], finding["place"]) == ("ControllerNotReady", f"pod {installed.objects.namespace}/zenvoy-0")
    assert "ImagePullBackOff: no such image" in finding["message"]


async def test_doctor_unknown_proxy_pod_is_reported(installed: Installed) -> None:
    await installed.proxy("edge-1", {"phase": "Running"})
    await installed.proxy("edge-2", {"phase": "Running"})
    waiting = {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}
    container = {"name": "envoy", "state": waiting, "image": "", "imageID": "", "ready": False, "restartCount": 0}
    await installed.proxy("edge-3", {"phase": "Pending", "containerStatuses": [container]})
    await installed.proxy("edge-4", {"phase": "Failed", "reason": "Evicted"})
    holders = [{"id": name, "mode": "anyip", "connected": True} for name in ("edge-1", "holder-1")]
    envoys = [{**ENVOY, "id": name, "lastNack": None} for name in ("edge-1", "edge-2")]
    installed.controller.answers["/v1/overview"] = {**OVERVIEW, "holders": holders, "envoys": envoys}
    second, third = await installed.findings()
    assert (second["check"], second["place"]) == ("proxies", f"pod {installed.objects.namespace}/edge-2")
    assert second["code"] == third["code"] == "ProxyNotJoined"
    assert second["message"] == "its holder is not connected to a reconciler: Running"
    assert "kubectl logs edge-2" in second["remedy"] and "NetworkPolicy" in second["remedy"]
    assert third["message"].startswith("neither its Envoy nor its holder is connected")
    assert third["message"].endswith("ErrImagePull: no such image")
    assert third["remedy"] == f"kubectl describe pod edge-3 -n {installed.objects.namespace}"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "may claim hosts or ports"),
        (['--host-policy=[{"namespaces":["a"],"hosts":["*"]}]'], "may claim ports:"),
    ],
)
async def test_doctor_without_host_policy_notes_it(installed: Installed, arguments: list[str], words: str) -> None:
    await installed.run_with(arguments)
    finding = await installed.found(code=0)
    assert (finding["code"], finding["severity"]) == ("HostPolicyIncomplete", "note")
    assert words in finding["message"]


async def test_doctor_expired_lease_is_reported(installed: Installed) -> None:
    where = path("coordination.k8s.io/v1", "leases", installed.objects.namespace, "zenvoy")
    change: dict[str, Any] = {"spec": {"renewTime": micro_time(1e9), "leaseDurationSeconds": 1}}
    await installed.objects.api.patch(where, change, MERGE_PATCH)
    assert (await installed.found())["code"] == "LeaseExpired"
    change = {"spec": {"renewTime": micro_time(4e9), "holderIdentity": "zenvoy-gone"}}
    await installed.objects.api.patch(where, change, MERGE_PATCH)
    finding = await installed.found()
    assert finding["code"] == "LeaderUnknown" and "zenvoy-gone" in finding["message"]


async def test_doctor_with_another_clock_finds_the_leader(installed: Installed) -> None:
    """The Lease has the time of the leader's clock, which may be behind."""
    where = path("coordination.k8s.io/v1", "leases", installed.objects.namespace, "zenvoy")

    async def renew() -> None:
        at = 1e9
        while True:
            at += 1
            change = {"spec": {"renewTime": micro_time(at), "leaseDurationSeconds": 60}}
            await installed.objects.api.patch(where, change, MERGE_PATCH)
            await asyncio.sleep(0.1)

    renewals = asyncio.create_task(renew())
    try:
        done = await installed.doctor()
    finally:
        renewals.cancel()
    assert "zenvoy-0 leads" in done.out


async def test_doctor_shows_the_controllers_findings(installed: Installed) -> None:
    nack = {"at": "2026-01-02T03:04:05+00:00", "message": "no such cluster"}
    installed.controller.answers["/v1/overview"] = {
        **OVERVIEW,
        "envoys": [{**ENVOY, "lastNack": nack}, {"id": "edge-2", "away": True}],
        "holders": [
            {"id": "holder-1", "mode": "anyip", "connected": True},
            {"id": "holder-2", "mode": "tproxy", "connected": True},
        ],
        "sample": {
            **SAMPLE,
            "provider": "prometheus",
            "unknown": "Envoy edge-1 is missing: no series",
            "unknownReason": "envoy_missing",
        },
    }
    found = {(finding["check"], finding["place"]): finding for finding in await installed.findings()}
    assert {finding["code"] for finding in found.values()} == {
        *("ConfigurationRejected", "EnvoyDisconnected", "HoldModesDiffer", "SamplesUnknown"),
    }
    assert "no such cluster" in found["Envoys", "Envoy edge-1"]["message"]
    assert found["Envoys", "Envoy edge-2"]["code"] == "EnvoyDisconnected"
    assert "holdMode" in found["holders", "holders"]["remedy"]
    samples = found["samples", installed.controller.url]
    assert "edge-1 is missing" in samples["message"] and "target of every Envoy is up" in samples["remedy"]
    assert len(found) == 4


async def test_doctor_unreachable_controller_is_reported(installed: Installed) -> None:
    installed.controller.answers = {}
    finding = await installed.found()
    assert finding["code"] == "ControllerSilent" and finding["remedy"].endswith("--controller URL")


async def test_doctor_invalid_services_are_reported(installed: Installed) -> None:
    broken = [condition("Ready", "False", "BadSpec", "spec.port: the Service has no port 'htpp'; write http")]
    await installed.objects.scaled_service("bad", conditions=broken, observedGeneration=1)
    stalled = [
        condition("Ready", "False", "ImagePullBackOff", "x"),
        condition("Stalled", "True", "ImagePullBackOff", "ImagePullBackOff: no such image"),
    ]
    await installed.objects.scaled_service("slow", **entered("Waking", conditions=stalled, observedGeneration=1))
    bad, slow = await installed.findings()
    assert bad["place"] == f"ScaledService {installed.objects.namespace}/bad"
    assert (bad["code"], bad["reason"]) == ("ServiceNotReady", "BadSpec")
    assert bad["message"].endswith("write http")
    assert (slow["code"], slow["reason"]) == ("WakeStalled", "ImagePullBackOff")
    assert "no such image" in slow["message"]


async def awake(installed: Installed, name: str = "web") -> None:
    ready = [condition("Ready", "True", "Active")]
    await installed.objects.scaled_service(name, **entered("Active", conditions=ready, observedGeneration=1))


async def test_doctor_keda_conflict_is_reported(installed: Installed, api: Api) -> None:
    await awake(installed)
    definition = path("apiextensions.k8s.io/v1", "customresourcedefinitions", name="scaledobjects.keda.sh")
    await api.call("PATCH", definition, SCALED_OBJECTS, APPLY_PATCH, {"fieldManager": "tests", "force": "true"})
    where = path("keda.sh/v1alpha1", "scaledobjects", installed.objects.namespace, "web")
    scaled = {"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": {"name": "web"}}
    scaled["spec"] = {"scaleTargetRef": {"name": "web"}, "minReplicaCount": 2}
    await made(installed, scaled)
    finding = await installed.found()
    assert finding["code"] == "KedaRaisesReplicas"
    assert "minReplicaCount is 2" in finding["message"] and "autoscaling.keda.sh/paused" in finding["remedy"]
    for spec in ({"minReplicaCount": 0}, {"minReplicaCount": 2, "idleReplicaCount": 0}):
        await api.patch(where, {"spec": spec}, MERGE_PATCH)
        assert (await installed.found())["code"] == "KedaScalesToZero"
    await api.patch(where, {"metadata": {"annotations": {"autoscaling.keda.sh/paused": "true"}}}, MERGE_PATCH)
    assert await installed.findings(code=0) == []


async def test_doctor_autoscaler_is_noted(installed: Installed) -> None:
    await awake(installed)
    await installed.objects.deployment("web", None)
    autoscaler = {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "maxReplicas": 9}
    hpa = {"kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"}, "spec": {**autoscaler, "minReplicas": 3}}
    await installed.objects.make("autoscaling/v2", "horizontalpodautoscalers", hpa)
    finding = await installed.found(code=0)
    assert (finding["code"], finding["severity"]) == ("AutoscalerRaisesReplicas", "note")
    assert finding["place"] == f"HorizontalPodAutoscaler {installed.objects.namespace}/web"
    assert "raises it to 3 or more" in finding["message"]


async def test_doctor_ingress_past_the_proxy_is_named(installed: Installed) -> None:
    await awake(installed)
    await installed.objects.deployment("web", None)
    backend = {"service": {"name": "web", "port": {"number": 80}}}
    ingress = {"kind": "Ingress", "metadata": {"name": "shop"}, "spec": {"defaultBackend": backend}}
    await installed.objects.make("networking.k8s.io/v1", "ingresses", ingress)
    finding = await installed.found()
    assert (finding["code"], finding["place"]) == ("RoutePastProxy", f"Ingress {installed.objects.namespace}/shop")


async def test_doctor_exposed_service_is_named(installed: Installed) -> None:
    await awake(installed)
    await installed.objects.deployment("web", None)
    spec = {"type": "LoadBalancer", "selector": {"app": "web"}, "ports": [{"port": 80}]}
    await installed.objects.make("v1", "services", {"kind": "Service", "metadata": {"name": "web"}, "spec": spec})
    finding = await installed.found()
    assert (finding["code"], finding["place"]) == ("ServicePastProxy", f"Service {installed.objects.namespace}/web")


async def test_doctor_second_installation_is_named(installed: Installed, api: Api) -> None:
    await awake(installed)
    await installed.objects.deployment("web", None)
    async with new_namespace(api, "other") as other:
        objects = Objects(api, other)
        labels = {"app.kubernetes.io/component": "reconciler"}
        container = {"name": "reconciler", "image": "example/zenvoy:1", "args": []}
        await objects.pod({"metadata": {"name": "zenvoy-0", "labels": labels}, "spec": {"containers": [container]}})
        ready = {"conditions": [{"type": "Ready", "status": "True"}], "phase": "Running"}
        await api.patch(path("v1", "pods", other, "zenvoy-0", "status"), {"status": ready}, MERGE_PATCH)
        lease = {"kind": "Lease", "metadata": {"name": "zenvoy"}, "spec": {"holderIdentity": "zenvoy-0"}}
        await objects.make("coordination.k8s.io/v1", "leases", lease)
        finding = await installed.found()
    assert (finding["code"], finding["place"]) == ("InstalledTwice", f"namespace {other}")


async def made(installed: Installed, scaled: dict[str, Any]) -> None:
    """Create objects, retrying while their kind is new to the API server."""
    async with asyncio.timeout(240):
        while True:
            try:
                await installed.objects.make("keda.sh/v1alpha1", "scaledobjects", scaled)
            except ApiError as error:
                if error.status != 404:
                    raise
                await asyncio.sleep(0.05)
            else:
                return


async def test_doctor_policy_that_blocks_zenvoy_is_named(installed: Installed, cli: Cli) -> None:
    await awake(installed)
    objects, namespace = installed.objects, installed.objects.namespace
    await objects.deployment("web", None)
    service = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}
    await objects.make("v1", "services", {"kind": "Service", "metadata": {"name": "web"}, "spec": service})
    await installed.proxy("edge-1", {"phase": "Running"})
    edge = [{**ENVOY, "lastNack": None}], [{"id": "edge-1", "mode": "anyip", "connected": True}]
    installed.controller.answers["/v1/overview"] = {**OVERVIEW, "envoys": edge[0], "holders": edge[1]}
    networking = "networking.k8s.io/v1"
    deny = {"kind": "NetworkPolicy", "metadata": {"name": "deny"}, "spec": {"podSelector": {}}}
    await objects.make(networking, "networkpolicies", deny)
    proxies, reconcilers = await installed.findings()
    assert (proxies["code"], proxies["severity"]) == ("PolicyBlocksProxies", "problem")
    assert (reconcilers["code"], reconcilers["severity"]) == ("PolicyBlocksReconcilers", "note")
    assert proxies["place"] == reconcilers["place"] == f"NetworkPolicy {namespace}/deny"
    assert f"port 8080 of the pods of {namespace}/web" in proxies["message"]
    elsewhere = await cli("doctor", "-n", namespace, "--system-namespace", "absent", "-o", "json", code=1)
    assert "ControllerMissing" in {found["code"] for found in elsewhere.json["findings"]}
    rules = [rule for found in (proxies, reconcilers) for rule in added(found["remedy"])]
    admit = {"metadata": {"name": "zenvoy"}, "spec": {"podSelector": {}, "ingress": rules}}
    await objects.make(networking, "networkpolicies", {"kind": "NetworkPolicy", **admit})
    assert await installed.findings(code=0) == []


def added(remedy: str) -> Any:
    """Return the rules that a remedy adds to a policy."""
    return yaml.safe_load(remedy.partition("spec.ingress: ")[2].partition(" (docs/")[0])


@pytest.mark.parametrize(
    ("manager", "level", "remedy"),
    [
        ("argocd-controller", "problem", "RespectIgnoreDifferences=true"),
        ("kustomize-controller", "problem", "manifests that Flux applies"),
        ("helm-controller", "problem", "driftDetection.ignore"),
        ("helm", "note", "from the chart's template"),
        ("some-operator", "problem", "from the manifest"),
        ("kubectl", "note", "from the manifest"),
    ],
)
async def test_doctor_applier_of_replicas_is_named(
    installed: Installed, api: Api, manager: str, level: str, remedy: str
) -> None:
    """With server-side apply, replicas have no owner after zenvoy has scaled the target, until the next apply."""
    await awake(installed)
    where = path("apps/v1", "deployments", installed.objects.namespace, "web")
    as_manager = {"fieldManager": manager, "force": "true"}
    await api.call("PATCH", where, {"apiVersion": "apps/v1", **deployment("web", None)}, APPLY_PATCH, as_manager)
    assert await installed.findings(code=0) == []
    await api.call("PATCH", where, {"apiVersion": "apps/v1", **deployment("web", 2)}, APPLY_PATCH, as_manager)
    finding = await installed.found(code=1 if level == "problem" else 0)
    assert (finding["severity"], finding["place"]) == (level, f"Deployment {installed.objects.namespace}/web")
    assert finding["code"] == "ReplicasApplied" and remedy in finding["remedy"]
    assert (await installed.doctor(code=1 if level == "problem" else 0)).out.count(f"{level}: Deployment") == 1
    await api.call("PATCH", f"{where}/scale", {"spec": {"replicas": 0}}, MERGE_PATCH, {"fieldManager": "zenvoy"})
    assert await installed.findings(code=0) == []


@pytest.mark.parametrize(
    ("manager", "level"), [("argocd-controller", "problem"), ("kubectl-client-side-apply", "note")]
)
async def test_doctor_client_side_apply_is_recognized(installed: Installed, api: Api, manager: str, level: str) -> None:
    """A creation owns the defaults too, so that ownership of the field alone proves nothing."""
    await awake(installed)
    where, query = path("apps/v1", "deployments", installed.objects.namespace), {"fieldManager": manager}
    await api.call("POST", where, {"apiVersion": "apps/v1", **deployment("web", None)}, query=query)
    assert await installed.findings(code=0) == []
    text = json.dumps(deployment("web", 2))
    annotated = {"metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": text}}}
    await api.call("PATCH", f"{where}/web", annotated, MERGE_PATCH, query)
    finding = await installed.found(code=1 if level == "problem" else 0)
    assert finding["severity"] == level and "spec.replicas" in finding["message"]


async def test_doctor_forbidden_checks_are_noted(
    installed: Installed,
    cli: Cli,
    control_plane: Cluster,
    tmp_path: Path,
) -> None:
    """Run doctor as a user who can read ScaledServices only, in one namespace."""
    objects, namespace = installed.objects, cli.namespace
    await objects.make("v1", "serviceaccounts", {"kind": "ServiceAccount", "metadata": {"name": "jane"}})
    rules = [{"apiGroups": ["zenvoy.dev"], "resources": [PLURAL], "verbs": ["get", "list"]}]
    role = await objects.make(RBAC, "roles", {"kind": "Role", "metadata": {"name": "jane"}, "rules": rules})
    binding = {
        "kind": "RoleBinding",
        "metadata": {"name": "jane"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "jane"},
        "subjects": [{"kind": "ServiceAccount", "name": "jane", "namespace": namespace}],
    }
    await objects.make(RBAC, "rolebindings", binding)
    await installed.until_may(f"list {PLURAL}.zenvoy.dev in {namespace}", "jane")
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    where = path("v1", "serviceaccounts", namespace, "jane", "token")
    token = json.loads(await objects.api.call("POST", where, asked))["status"]["token"]
    config = yaml.safe_load(control_plane.kubeconfig.read_text())
    config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
    (tmp_path / "jane").write_text(yaml.safe_dump(config))
    found = json.loads((await installed.doctor("--kubeconfig", "jane", "-o", "json")).out)["findings"]
    assert {(finding["check"], finding["severity"]) for finding in found} == {
        ("definition", "note"),
        ("controller", "note"),
        ("proxies", "note"),
        ("conflicts", "note"),
        ("routes", "note"),
        ("endpoints", "note"),
        ("network policies", "note"),
    }
    assert {finding["code"] for finding in found} == {"NotPermitted"}
    rules = [*role["rules"], {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]
    rules.append({"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get"]})
    await objects.api.patch(path(RBAC, "roles", namespace, "jane"), {"rules": rules}, MERGE_PATCH)
    await installed.until_may(f"list pods in {namespace}", "jane")
    found = json.loads((await installed.doctor("--kubeconfig", "jane", "-o", "json")).out)["findings"]
    assert [finding["check"] for finding in found] == [
        *("definition", "permissions", "conflicts", "routes", "endpoints", "network policies"),
    ]
    assert "subjectaccessreviews" in found[1]["message"]
