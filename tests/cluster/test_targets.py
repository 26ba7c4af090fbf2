"""Discovery of scalable kinds on a real API server, and errors about kinds that cannot be scaled."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.client.discovery import Discovery, NoSuchKind, ScalableResource
from reconciler.kubernetes.client.errors import ApiError
from reconciler.plan import AtLeast, Zero
from tests.cluster.stage import GENEROUS_SECONDS, Stage, container, entry, waiting

PORTS = [{"port": 80}]


@pytest.fixture
async def group(api: Api) -> AsyncIterator[str]:
    """Provide an unused API group; its kinds are deleted after the test."""
    name = f"t{secrets.token_hex(4)}.example.com"
    yield name
    with suppress(ApiError):  # the test has deleted it, or never defined it
        await api.call("DELETE", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/fleets.{name}")


def fleets(group: str, selector: bool = True) -> dict[str, Any]:
    """Return a kind whose number is not where a Deployment's is."""
    scale = {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"}
    if selector:
        scale["labelSelectorPath"] = ".status.selector"
    size = {"type": "object", "properties": {"size": {"type": "integer", "maximum": 50}}}
    status = {"type": "object", "properties": {"size": {"type": "integer"}, "selector": {"type": "string"}}}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": size, "status": status}}},
        "subresources": {"status": {}, "scale": scale},
    }
    names = {"plural": "fleets", "singular": "fleet", "kind": "Fleet"}
    spec = {"group": group, "scope": "Namespaced", "names": names, "versions": [version]}
    return {"metadata": {"name": f"fleets.{group}"}, "spec": spec}


async def define(api: Api, body: dict[str, Any]) -> None:
    """Return once the API server serves it and lists it in its discovery."""
    await api.call("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", body)
    version = f"{body['spec']['group']}/v1"
    async with asyncio.timeout(GENEROUS_SECONDS):
        while True:
            try:
                await api.get(f"/apis/{version}/fleets")
                await Discovery(api).find(version, "Fleet")
                return
            except (ApiError, NoSuchKind):
                await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("api_version", "kind", "plural", "plain"),
    [
        ("apps/v1", "Deployment", "deployments", True),
        ("apps/v1", "StatefulSet", "statefulsets", True),
        ("apps/v1", "ReplicaSet", "replicasets", True),
        ("v1", "ReplicationController", "replicationcontrollers", True),
    ],
)
async def test_discovery_kinds_with_scale_are_found(
    api: Api, api_version: str, kind: str, plural: str, plain: bool
) -> None:
    found = await Discovery(api).find(api_version, kind)
    assert found == ScalableResource(api_version, kind, plural)
    assert found.is_plain is plain


@pytest.mark.parametrize(
    ("api_version", "kind", "said"),
    [
        ("apps/v1", "Deploymnet", "NoSuchKind: apps/v1 has no kind Deploymnet; did you mean Deployment?"),
        ("apps/v1", "deployments", "NoSuchKind: apps/v1 has no kind deployments; did you mean Deployment?"),
        ("apps/v1", "Rollout", "NoSuchKind: apps/v1 has no kind Rollout"),
        ("apps/v2", "Deployment", "NoSuchKind: the API server has no apps/v2, but apps/v1"),
        ("v2", "Pod", "NoSuchKind: the API server has no v2; apiVersion is `group/version`, as in apps/v1"),
        ("aps/v1", "Deployment", "NoSuchKind: the API server has no group aps; did you mean apps?"),
        (
            "argoproj.io/v1alpha1",
            "Rollout",
            "NoSuchKind: the API server has no group argoproj.io; is its CustomResourceDefinition installed?",
        ),
        (
            "apps/v1",
            "DaemonSet",
            "NotScalable: DaemonSet (apps/v1) has no scale subresource",
        ),
        ("v1", "Node", "NotScalable: Node (v1) is not namespaced"),
    ],
)
async def test_discovery_kind_without_scale_is_reported(api: Api, api_version: str, kind: str, said: str) -> None:
    with pytest.raises(NoSuchKind) as raised:
        await Discovery(api).find(api_version, kind)
    assert str(raised.value) == said


@pytest.mark.parametrize("selector", [True, False])
async def test_discovery_custom_kind_is_scaled_at_any_path(stage: Stage, api: Api, group: str, selector: bool) -> None:
    await define(api, fleets(group, selector))
    version = f"{group}/v1"
    await stage.make("fleets", {"kind": "Fleet", "metadata": {"name": "f"}, "spec": {"size": 2}}, version)
    stage.configure(entry("f", stage.namespace, kind="Fleet", api_version=version))
    await stage.until("f", lambda running: running.replicas == 2)
    await stage.scale("f", 4, "fleets", version)
    await stage.until("f", lambda running: running.replicas == 4)
    stage.converge("f", Zero())
    await stage.until("f", lambda running: running.replicas == 0)
    assert await stage.replicas("f", "fleets", version) == 0
    stage.converge("f", AtLeast(4))
    await stage.until("f", lambda running: running.replicas == 4)
    await stage.delete("fleets", "f", version)
    gone = await stage.until("f", lambda running: "TargetNotFound" in str(running.diagnosis))
    assert str(gone.diagnosis) == f"TargetNotFound: Fleet {stage.namespace}/f does not exist"


async def test_scale_number_forbidden_by_schema_is_reported(stage: Stage, api: Api, group: str) -> None:
    await define(api, fleets(group))
    version = f"{group}/v1"
    await stage.make("fleets", {"kind": "Fleet", "metadata": {"name": "f"}, "spec": {"size": 0}}, version)
    stage.configure(entry("f", stage.namespace, kind="Fleet", api_version=version))
    await stage.until("f", lambda running: running.replicas == 0)
    stage.converge("f", AtLeast(51))
    failed = await stage.until("f", lambda running: "ScaleFailed" in str(running.diagnosis))
    assert "51" in str(failed.diagnosis)
    stage.converge("f", AtLeast(50))
    await stage.until("f", lambda running: running.replicas == 50 and not running.diagnosis)


async def test_discovery_kind_removed_and_added_again_works(stage: Stage, api: Api, group: str) -> None:
    version = f"{group}/v1"
    stage.configure(entry("f", stage.namespace, kind="Fleet", api_version=version))
    missing = await stage.until("f", lambda running: running.diagnosis)
    assert str(missing.diagnosis).startswith(f"NoSuchKind: the API server has no group {group}")
    stage.converge("f", AtLeast(3))
    for _ in range(2):
        await define(api, fleets(group))
        await stage.make("fleets", {"kind": "Fleet", "metadata": {"name": "f"}, "spec": {"size": 0}}, version)
        await stage.until("f", lambda running: running.replicas == 3 and running.diagnosis is None)
        await api.call("DELETE", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/fleets.{group}")
        await stage.until("f", lambda running: running.diagnosis)
        async with asyncio.timeout(GENEROUS_SECONDS):
            while not (running := stage.now("f")) or "NoSuchKind" not in str(running.diagnosis):
                await asyncio.sleep(0.05)


async def test_target_without_selector_uses_the_services_pods(stage: Stage, api: Api, group: str) -> None:
    await define(api, fleets(group, selector=False))
    version = f"{group}/v1"
    await stage.make("fleets", {"kind": "Fleet", "metadata": {"name": "f"}, "spec": {"size": 0}}, version)
    await stage.make("services", {"metadata": {"name": "f"}, "spec": {"selector": {"app": "f"}, "ports": PORTS}}, "v1")
    pod = {"metadata": {"name": "f-0", "labels": {"app": "f"}}, "spec": {"containers": [{"name": "app", "image": "x"}]}}
    await stage.until_pods_may_be_made()
    made = await stage.make("pods", pod, "v1")
    stage.configure(entry("f", stage.namespace, kind="Fleet", api_version=version))
    await stage.until("f", lambda running: running.replicas == 0)
    stage.converge("f", AtLeast(1))
    await stage.say(made, containerStatuses=[container(waiting("CreateContainerConfigError", 'secret "db" not found'))])
    await stage.until("f", lambda running: 'secret "db" not found' in str(running.diagnosis))
