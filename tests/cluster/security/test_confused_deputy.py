"""A tenant that names another namespace's Deployment in a way that a URL would resolve.

The tenant has `edit` in one namespace; the controller has the chart's own account and may scale every Deployment.
"""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.client.errors import ApiError
from reconciler.kubernetes.types.objects import path
from reconciler.kubernetes.types.scaled_service import API_VERSION, COMMAND_ANNOTATION, ENABLED_LABEL, KIND, PLURAL
from tests.cluster import crd
from tests.cluster.chart import Chart
from tests.cluster.cli.parts import Objects
from tests.cluster.harness import Cluster
from tests.cluster.namespaces import new_namespace
from tests.cluster.rights import controller, kubeconfig_of
from tests.cluster.security.tenant import Tenant, tenant
from tests.xds.parts import until_async

ACCOUNT = "zenvoy-reconciler"
WAKE = "wake@2026-01-02T03:04:05.000000Z"
WOKEN_TO = 7


def attacks(victim: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a name and a spec for every way to write a path to the victim's Deployment `asleep`."""
    up = f"../../{victim}/deployments/asleep"
    names = {
        "up": up,
        "up-again": f"x/../{up}",
        "encoded-slash": up.replace("/", "%2f"),
        "encoded-dots": up.replace("..", "%2e%2e"),
        "encoded-twice": up.replace("/", "%252f"),
        "query": f"{up}/scale?dryRun=",
        "fragment": f"{up}/scale#",
        "semicolon": f"{up};",
        "backslash": up.replace("/", "\\"),
        "empty-segments": f"..//..//{victim}//deployments//asleep",
        "absolute": f"/apis/apps/v1/namespaces/{victim}/deployments/asleep",
        "whole-url": f"https://kubernetes.default.svc/apis/apps/v1/namespaces/{victim}/deployments/asleep",
        "dot": ".",
        "dots": "..",
        "upper-case": "../../" + victim.upper() + "/deployments/asleep",
        "control": f"{up}\n",
        "long": "x/../" * 40 + up,
    }
    for name, value in names.items():
        yield f"name-{name}", {"scaleTargetRef": {"name": value}}
    version = f"apps/v1/namespaces/{victim}/deployments/asleep"
    for name, value in {"path": version, "query": "apps/v1?x=", "dots": "apps/v1/../v1", "upper": "APPS/v1"}.items():
        yield f"version-{name}", {"scaleTargetRef": {"apiVersion": value, "name": "mine"}}
    for name, value in {"path": f"Deployment/../../{victim}", "dots": "..", "query": "Deployment?"}.items():
        yield f"kind-{name}", {"scaleTargetRef": {"kind": value, "name": "mine"}}
    yield "service-path", {"service": f"../{victim}/asleep", "scaleTargetRef": {"name": "mine"}}
    yield "service-default", {"service": up}


def notes(victim: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield a name and the annotations of a labelled Service, for the same."""
    for number, target in enumerate(
        (
            f"Deployment/../../{victim}/deployments/asleep",
            f"apps/v1/Deployment/..%2f..%2f{victim}%2fdeployments%2fasleep",
            f"apps/v1/namespaces/{victim}/Deployment/asleep",
            "apps/v1/Deployment/..",
            "/Deployment/asleep",
        )
    ):
        yield f"note-{number}", {"zenvoy.dev/target": target, "zenvoy.dev/replicas": str(WOKEN_TO)}


def scaled_service(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Return one that asks to be woken to `WOKEN_TO`."""
    metadata = {"name": name, "annotations": {COMMAND_ANNOTATION: WAKE}}
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": {"replicas": WOKEN_TO, **spec}}


def service(name: str, **metadata: Any) -> dict[str, Any]:
    ports = [{"name": "http", "port": 80}]
    return {
        "kind": "Service",
        "metadata": {"name": name, **metadata},
        "spec": {"selector": {"app": name}, "ports": ports},
    }


@pytest.fixture
async def victim(api: Api) -> AsyncIterator[Objects]:
    """Provide another tenant's namespace: one Deployment at zero, and one that runs."""
    async with new_namespace(api, "other") as name:
        made = Objects(api, name)
        await made.deployment("asleep", 0)
        await made.deployment("awake", 3)
        yield made


@pytest.fixture
async def crd_without_patterns(api: Api) -> AsyncIterator[None]:
    """Provide an older CRD, which takes any text for a name."""
    await crd.install(api)
    older = copy.deepcopy(crd.manifest())
    spec = older["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    for field in (spec["service"], *spec["scaleTargetRef"]["properties"].values()):
        for limit in ("x-kubernetes-validations", "maxLength", "minLength"):
            field.pop(limit, None)
    spec["service"]["maxLength"] = 4096  # the rule about changes has a budget that needs bounds
    for field in spec["scaleTargetRef"]["properties"].values():
        field["maxLength"] = 4096
    where = path("apiextensions.k8s.io/v1", "customresourcedefinitions", name=older["metadata"]["name"])
    await api.call("PATCH", where, older, crd.APPLY_PATCH, {"fieldManager": "tests", "force": "true"})

    async def is_older() -> bool:
        try:
            body = scaled_service("older", {"scaleTargetRef": {"name": "../x"}})
            await api.call("POST", path(API_VERSION, PLURAL, "default"), body, query={"dryRun": "All"})
        except ApiError:
            return False
        return True

    await until_async(is_older, "the API server takes any name")
    yield
    await crd.install(api)

    async def is_strict() -> bool:
        return not await is_older()

    await until_async(is_strict, "the API server takes valid names only")


@pytest.fixture
async def attacker(
    system: Chart, control_plane: Cluster, api: Api, namespace: str, tmp_path: Path
) -> AsyncIterator[Tenant]:
    async with tenant(control_plane, api, namespace, tmp_path) as made:
        yield made


async def replicas_of(objects: Objects, name: str) -> int:
    found = json.loads(await objects.api.get(path("apps/v1", "deployments", objects.namespace, name)))
    return int(found["spec"]["replicas"])


async def assert_untouched(victim: Objects) -> None:
    """Assert that the replicas of the victim's Deployments never changed, not even temporarily."""
    listed = json.loads(await victim.api.get(path("apps/v1", "deployments", victim.namespace)))["items"]
    found = {one["metadata"]["name"]: (one["spec"]["replicas"], one["metadata"]["generation"]) for one in listed}
    assert found == {"asleep": (0, 1), "awake": (3, 1)}


async def test_admission_refuses_every_way_out_of_a_namespace(attacker: Tenant, victim: Objects) -> None:
    where = path(API_VERSION, PLURAL, attacker.namespace)
    for name, spec in attacks(victim.namespace):
        with pytest.raises(ApiError) as refusal:
            await attacker.api.call("POST", where, scaled_service(name, spec))
        assert refusal.value.status == 422, name
    with pytest.raises(ApiError) as refusal:
        await attacker.api.get(path("apps/v1", "deployments", victim.namespace))
    assert refusal.value.status == 403, "the tenant itself may not even read it"


@pytest.mark.usefixtures("crd_without_patterns")
async def test_controller_never_scales_by_a_path_in_a_name(
    system: Chart, control_plane: Cluster, attacker: Tenant, victim: Objects, tmp_path: Path
) -> None:
    own, where = attacker.objects, path(API_VERSION, PLURAL, attacker.namespace)
    for name, spec in attacks(victim.namespace):
        await own.make("v1", "services", service(name))
        await attacker.api.call("POST", where, scaled_service(name, spec))
    annotated = dict(notes(victim.namespace))
    for name, said in annotated.items():
        await own.make("v1", "services", service(name, labels={ENABLED_LABEL: "true"}, annotations=said))
    await own.deployment("mine", 0)
    await own.make("v1", "services", service("mine"))
    await attacker.api.call("POST", where, scaled_service("mine", {}))
    identity = kubeconfig_of(control_plane, system.namespace, ACCOUNT, tmp_path)

    async def reasons() -> dict[str, str]:
        listed = json.loads(await attacker.api.get(where))["items"]
        conditions = {one["metadata"]["name"]: one.get("status", {}).get("conditions", ()) for one in listed}
        return {name: one["reason"] for name, many in conditions.items() for one in many if one["type"] == "Ready"}

    async with controller(system.namespace, identity, tmp_path / "controller.log"):

        async def all_are_judged() -> bool:
            found = await reasons()
            return await replicas_of(own, "mine") == WOKEN_TO and found.keys() >= {*dict(attacks("x")), *annotated}

        await until_async(all_are_judged, "what is right is woken, and what is wrong is judged")
        found = await reasons()
        await assert_untouched(victim)
    named = {name: found[name] for name, spec in attacks("x") if "service" not in spec}
    assert set(named.values()) == {"BadSpec"}, named
    assert {found[name] for name in ("service-path", "service-default")} == {"ServiceNotFound"}
    assert {found[name] for name in annotated} == {"BadAnnotation"}
    await assert_untouched(victim)
