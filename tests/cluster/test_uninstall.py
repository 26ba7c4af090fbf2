"""Uninstallation with a ScaledService whose target zenvoy may not touch."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from reconciler.kubernetes.client.api import MERGE_PATCH, Api
from reconciler.kubernetes.client.errors import ApiError
from reconciler.kubernetes.types.objects import path
from reconciler.kubernetes.types.scaled_service import FINALIZER
from tests.cluster.chart import Chart
from tests.cluster.cli.parts import Objects, entered
from tests.cluster.harness import Cluster
from tests.cluster.rights import PROGRAM, controller, kubeconfig_of
from tests.xds.parts import until_async

ACCOUNT, ADMISSION = "zenvoy-reconciler", "admissionregistration.k8s.io/v1"
FORBIDDEN = {"apiVersion": "v1", "kind": "ReplicationController"}
"""A kind that has a scale, and is not among the chart's `scaleTargets`."""


async def uninstalled(kubeconfig: Path, system: str, namespace: str, *options: str) -> tuple[int, str]:
    """Run the command as the hook does; its exit code and all output."""
    where = ("--system-namespace", system, "--namespace", namespace, "--kubeconfig", kubeconfig)
    process = await asyncio.create_subprocess_exec(
        PROGRAM,
        "uninstall",
        "--yes",
        *options,
        *where,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(240):
        out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


def service(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 80}]}}


async def test_uninstall_with_an_untouchable_target_restores_the_rest(
    control_plane: Cluster, api: Api, namespace: str, system: Chart, tmp_path: Path
) -> None:
    objects = Objects(api, namespace)
    template = {"metadata": {"labels": {"app": "old"}}, "spec": {"containers": [{"name": "main", "image": "x"}]}}
    spec = {"replicas": 2, "selector": {"app": "old"}, "template": template}
    await objects.make("v1", "replicationcontrollers", {"metadata": {"name": "old"}, "spec": spec})
    await objects.deployment("web", 0)
    for name in ("old", "web"):
        await objects.make("v1", "services", service(name))
    await objects.scaled_service("old", {"scaleTargetRef": {**FORBIDDEN, "name": "old"}})
    await objects.scaled_service("web")
    identity = kubeconfig_of(control_plane, system.namespace, ACCOUNT, tmp_path)

    async def states() -> dict[str, str]:
        return {name: (await objects.get(name)).get("status", {}).get("state", "") for name in ("old", "web")}

    async def ready(name: str) -> str:
        conditions = (await objects.get(name)).get("status", {}).get("conditions", ())
        return next((one["reason"] for one in conditions if one["type"] == "Ready"), "")

    async with controller(system.namespace, identity, tmp_path / "controller.log"):

        async def are_judged() -> bool:
            return await states() == {"old": "Active", "web": "ScaledToZero"} and await ready("old") == "Forbidden"

        await until_async(are_judged, "both are judged")

    code, said = await uninstalled(identity, system.namespace, namespace, "--best-effort")
    assert code == 0, said
    assert f"{namespace}/old: nothing to restore: zenvoy may not scale" in said
    assert f"{namespace}/web: Deployment {namespace}/web was restored to 1 replica" in said
    for name in ("old", "web"):
        assert "finalizers" not in (await objects.get(name))["metadata"]

    # As an earlier release left it: called asleep, though nothing was ever seen of it.
    await objects.status("old", **entered("ScaledToZero", replicas=2))
    code, said = await uninstalled(identity, system.namespace, namespace, "--best-effort")
    assert code == 0, said
    remedy = f"scale it by hand: kubectl -n {namespace} scale ReplicationController old --replicas=2"
    assert remedy in said and f"were not restored; see the message of each: {namespace}/old" in said
    listed = json.loads(await api.get(path("v1", "events", namespace)))["items"]
    failed = [one for one in listed if one["reason"] == "RestoreFailed"]
    assert [one["involvedObject"]["name"] for one in failed] == ["old"] and remedy in failed[0]["message"]
    code, said = await uninstalled(identity, system.namespace, namespace)
    assert code == 1, "without --best-effort it is a failure"


async def test_uninstall_is_not_blocked_by_a_webhook_that_is_gone(
    control_plane: Cluster, api: Api, namespace: str, system: Chart, tmp_path: Path
) -> None:
    objects = Objects(api, namespace)
    await objects.deployment("web", 0)
    await objects.make("v1", "services", service("web"))
    await objects.scaled_service("web", **entered("ScaledToZero", replicas=2))
    await objects.change("web", {"metadata": {"finalizers": [FINALIZER]}})
    identity = kubeconfig_of(control_plane, system.namespace, ACCOUNT, tmp_path)
    webhooks, scale = "validatingwebhookconfigurations", path("apps/v1", "deployments", namespace, "web", "scale")
    webhook = {
        "name": "scale.example.com",
        "clientConfig": {"url": "https://127.0.0.1:1/"},
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "rules": [
            {
                "apiGroups": ["apps"],
                "apiVersions": ["v1"],
                "operations": ["UPDATE"],
                "resources": ["deployments/scale"],
            }
        ],
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    kind = {"kind": "ValidatingWebhookConfiguration", "metadata": {"name": namespace}, "webhooks": [webhook]}
    await objects.make(ADMISSION, webhooks, kind, namespace=None)
    try:

        async def is_in_force() -> bool:
            try:
                await api.patch(scale, {"spec": {"replicas": 0}}, MERGE_PATCH)
            except ApiError as error:
                return "webhook" in error.message
            return False

        await until_async(is_in_force, "the webhook is called")
        code, said = await uninstalled(identity, system.namespace, namespace, "--best-effort")
    finally:
        await api.call("DELETE", path(ADMISSION, webhooks, name=namespace))
    assert code == 0, said
    assert f"{namespace}/web: failed to restore" in said and "failed calling webhook" in said
    assert f"scale it by hand: kubectl -n {namespace} scale Deployment web --replicas=2" in said
    assert "finalizers" not in (await objects.get("web"))["metadata"]


async def test_hook_that_was_applied_changes_nothing(
    control_plane: Cluster, api: Api, namespace: str, system: Chart, tmp_path: Path
) -> None:
    objects = Objects(api, namespace)
    await objects.deployment("web", 0)
    await objects.make("v1", "services", service("web"))
    await objects.scaled_service("web", state="ScaledToZero", since="2026-01-02T03:04:05Z", reason="idle")
    identity = kubeconfig_of(control_plane, system.namespace, ACCOUNT, tmp_path)
    hook = ("--best-effort", "--hook-of", ACCOUNT)

    # As `helm template | kubectl apply` leaves it.
    control_plane.kubectl("annotate", "service", ACCOUNT, "--namespace", system.namespace, "meta.helm.sh/release-name-")
    code, said = await uninstalled(identity, system.namespace, namespace, *hook)
    assert code == 0 and said.startswith("nothing was done"), said
    scale = path("apps/v1", "deployments", namespace, "web", "scale")
    assert "replicas" not in json.loads(await api.get(scale))["spec"]

    control_plane.kubectl(
        "annotate", "service", ACCOUNT, "--namespace", system.namespace, "argocd.argoproj.io/tracking-id=zenvoy"
    )
    code, said = await uninstalled(identity, system.namespace, namespace, *hook)
    assert code == 0, said
    assert json.loads(await api.get(scale))["spec"]["replicas"] == 1
