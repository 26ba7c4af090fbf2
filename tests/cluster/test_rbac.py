"""The program's requests to a real API server, compared with the chart's permissions: none refused, none unused."""

from __future__ import annotations

import asyncio
import json
import sys
from functools import partial
from pathlib import Path

from reconciler.kubernetes.client.api import MERGE_PATCH, Api
from reconciler.kubernetes.types.objects import path
from reconciler.kubernetes.types.scaled_service import API_VERSION, COMMAND_ANNOTATION, ENABLED_LABEL, PLURAL
from tests.cluster.chart import Chart
from tests.cluster.cli.parts import Objects
from tests.cluster.harness import Cluster
from tests.cluster.recorder import Asked, Recorder, recorder
from tests.cluster.rights import controller, kubeconfig_of
from tests.xds.parts import until_async

ACCOUNT = "zenvoy-reconciler"
PROGRAM = Path(sys.executable).parent / "zenvoy"
TARGETS = ("deployments", "statefulsets", "replicasets")


async def live_through(api: Api, objects: Objects) -> None:
    """Take a service through its life, as far as that is possible without running pods."""

    async def state(name: str, *wanted: str) -> None:
        async def reached() -> bool:
            return (await objects.find(name) or {}).get("status", {}).get("state") in wanted

        await until_async(reached, f"{name} is {wanted}")

    async def service(change: dict[str, object]) -> None:
        await api.patch(path("v1", "services", objects.namespace, "web"), {"metadata": change}, MERGE_PATCH)

    async def commanded(word: str) -> None:
        where = path(API_VERSION, PLURAL, objects.namespace, "web")
        await api.patch(where, {"metadata": {"annotations": {COMMAND_ANNOTATION: word}}}, MERGE_PATCH)

    scale = path("apps/v1", "deployments", objects.namespace, "web", "scale")
    await objects.deployment("web", 0)
    ports = {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80}]}
    labelled = {"name": "web", "labels": {ENABLED_LABEL: "true"}}
    await objects.make("v1", "services", {"kind": "Service", "metadata": labelled, "spec": ports})
    await state("web", "ScaledToZero")
    await commanded("wake@2026-01-02T03:04:05.000000Z")
    await state("web", "Waking")

    async def is_reported(is_wrong: bool, times: int) -> bool:
        """Return whether the status has the mistake, or not, and at least so many Events."""
        conditions = (await objects.get("web"))["status"].get("conditions", ())
        events = json.loads(await api.get(path("events.k8s.io/v1", "events", objects.namespace)))["items"]
        counts = [(one.get("series") or {}).get("count", 1) for one in events if one["reason"] == "BadAnnotation"]
        return ("BadAnnotation" in {one["reason"] for one in conditions}) is is_wrong and sum(counts) >= times

    await service({"annotations": {"zenvoy.dev/idle-after": "7m"}})
    for wrong, times in ((True, 1), (False, 1), (True, 2)):  # the second time is a repeated Event
        await service({"annotations": {"zenvoy.dev/idle-afer": "7m" if wrong else None}})
        is_so = partial(is_reported, wrong, times)
        await until_async(is_so, "the mistake is reported, or taken back")

    # Nothing runs here, so that it is never ready: it goes after its wakeTimeout.
    await service({"annotations": {"zenvoy.dev/idle-afer": None, "zenvoy.dev/wake-timeout": "5s"}})

    async def is_impatient() -> bool:
        return (await objects.get("web"))["spec"]["wakeTimeout"] == "5s"

    await until_async(is_impatient, "its wakeTimeout is changed")
    await service({"labels": {ENABLED_LABEL: None}})

    async def gone() -> bool:
        return await objects.find("web") is None

    await until_async(gone, "the ScaledService goes with the label")
    assert json.loads(await api.get(scale))["spec"]["replicas"] == 1, "restored"


async def granted(api: Api, system: Chart) -> set[Asked]:
    """Return the requests that the account's roles allow."""
    own = json.loads(await api.get(path("rbac.authorization.k8s.io/v1", "roles", system.namespace)))["items"]
    where = path("rbac.authorization.k8s.io/v1", "clusterroles", name=ACCOUNT)
    rules = [rule for role in (json.loads(await api.get(where)), *own) for rule in role["rules"]]
    return {
        Asked(group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def alike(requests: set[Asked]) -> set[Asked]:
    """Return the requests with one kind of target in place of all."""
    return {
        Asked(one.group, one.resource.replace(kind, "TARGETS"), one.verb)
        for one in requests
        for kind in [next((kind for kind in TARGETS if one.resource.startswith(kind)), "-")]
    }


async def test_rbac_grants_exactly_what_is_used(
    control_plane: Cluster, api: Api, namespace: str, system: Chart, tmp_path: Path
) -> None:
    objects = Objects(api, namespace)
    identity = kubeconfig_of(control_plane, system.namespace, ACCOUNT, tmp_path)
    seen: Recorder
    async with recorder(identity) as seen:
        config = seen.kubeconfig(identity)
        async with controller(system.namespace, config, tmp_path / "controller.log"):
            await live_through(api, objects)
        await objects.scaled_service("left", state="ScaledToZero", since="2026-01-02T03:04:05Z", reason="idle")
        leave = (PROGRAM, "uninstall", "--yes", "--hook-of", ACCOUNT, "--system-namespace", system.namespace)
        process = await asyncio.create_subprocess_exec(*leave, "--kubeconfig", config)
        assert await asyncio.wait_for(process.wait(), 240) == 0
    assert not seen.refused
    rights = await granted(api, system)
    assert alike(seen.asked) - alike(rights) == set(), "asked, and not granted"
    assert alike(rights) - alike(seen.asked) == set(), "granted, and never asked for"
