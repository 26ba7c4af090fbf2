"""Deletion of ScaledServices, and uninstallation, on a real API server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.cluster_client.cluster import ClusterClient
from reconciler.cluster_client.context_options import ContextOptions
from reconciler.cluster_client.uninstall import FENCE_SECONDS, RestoreOutcome, restore_services
from reconciler.kubernetes.client import lease_lock
from reconciler.kubernetes.client.api import MERGE_PATCH, Api, connect
from reconciler.kubernetes.client.errors import ApiError
from reconciler.kubernetes.client.leader_election import UNINSTALLER, LeaderElection, LeaseTiming
from reconciler.kubernetes.status.finalizer import FinalizerController
from reconciler.kubernetes.types.objects import path
from reconciler.kubernetes.types.scaled_service import API_VERSION, FINALIZER, PLURAL
from tests.cluster import crd
from tests.cluster.harness import Cluster
from tests.cluster.rights import kubeconfig_of
from tests.cluster.written import GENEROUS_SECONDS, Written, release_nothing, until

ASLEEP: dict[str, Any] = {"state": "ScaledToZero", "replicas": 3}
REMOVED = "; finalizer removed"


class Scene(Written):
    leads = True

    def finalizers(self, api: Api | None = None) -> FinalizerController:
        self.reported: list[tuple[str, str, bool]] = []
        made = FinalizerController(
            api or self.api,
            self.items,
            lambda: self.leads,
            lambda service, note: self.reported.append((service, note.text, note.warning)),
            lambda _: None,
            release_nothing,
        )
        self.listeners.append(made.saw)
        self.run(made.queue.run())
        return made

    async def held(self, name: str = "web") -> None:
        """Wait until it has the finalizer, and the informer knows."""
        await until(lambda: FINALIZER in self.items[self.named(name)].metadata.finalizers)

    async def gone(self, name: str = "web") -> None:
        await until(lambda: self.named(name) not in self.items)


@pytest.fixture
async def scene(api: Api, namespace: str) -> AsyncIterator[Scene]:
    await crd.install(api)
    scene = Scene(api, namespace)
    await scene.start()
    yield scene
    await scene.end()


async def test_finalizer_asleep_restores_replicas(scene: Scene) -> None:
    await scene.deploy(replicas=0)
    await scene.make()
    scene.finalizers().configure({scene.named()})
    await scene.held()
    await scene.stand(**ASLEEP)
    await scene.delete()
    await scene.gone()
    assert await scene.replicas() == 3
    said = f"Deployment {scene.named()} was restored to 3 replicas"
    assert scene.reported == [(scene.named(), said, False)]


async def test_finalizer_awake_changes_nothing(scene: Scene) -> None:
    await scene.deploy(replicas=2)
    await scene.make()
    scene.finalizers().configure({scene.named()})
    await scene.held()
    await scene.stand(state="Active", replicas=5)
    await scene.delete()
    await scene.gone()
    assert await scene.replicas() == 2


async def test_finalizer_repeated_deletion_leaves_nothing(scene: Scene) -> None:
    finalizers = scene.finalizers()
    for _ in range(5):
        await scene.make()
        finalizers.configure({scene.named()})
        await scene.delete()
        finalizers.configure(set())
        await scene.gone()


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({}, "nothing to restore: Deployment {} does not exist"),
        (
            {"scaleTargetRef": {"apiVersion": "example.org/v1", "kind": "Rollout"}},
            "nothing to restore: NoSuchKind: the API server has no group example.org; "
            "is its CustomResourceDefinition installed?",
        ),
    ],
)
async def test_finalizer_missing_target_does_not_delay(scene: Scene, spec: dict[str, Any], said: str) -> None:
    await scene.make(**spec)
    scene.finalizers().configure({scene.named()})
    await scene.held()
    await scene.stand(**ASLEEP)
    await scene.delete()
    await scene.gone()
    assert scene.reported == [(scene.named(), said.format(scene.named()), False)]


async def test_finalizer_namespace_deletion_completes(scene: Scene) -> None:
    await scene.deploy()
    await scene.make()
    scene.finalizers().configure({scene.named()})
    await scene.held()
    await scene.stand(**ASLEEP)
    await scene.api.call("DELETE", f"/api/v1/namespaces/{scene.namespace}")
    await scene.gone()


async def test_finalizer_without_permission_is_removed(scene: Scene, control_plane: Cluster, tmp_path: Path) -> None:
    limited = await connect(await _account(scene, control_plane, tmp_path))
    await scene.deploy()
    await scene.make()
    scene.finalizers(limited).configure({scene.named()})
    await scene.held()
    await scene.stand(**ASLEEP)
    await scene.delete()
    await scene.gone()
    await limited.close()
    [(_, said, failed)] = scene.reported
    assert failed
    assert said.startswith(f"failed to restore Deployment {scene.named()}: 403 Forbidden: deployments.apps")
    assert said.endswith("; scale it by hand")
    assert await scene.replicas() == 0


async def test_finalizer_waits_for_a_leader(scene: Scene) -> None:
    await scene.deploy()
    await scene.make()
    finalizers = scene.finalizers()
    finalizers.configure({scene.named()})
    await scene.held()
    await scene.stand(**ASLEEP)
    scene.leads = False
    await scene.delete()
    await until(lambda: scene.items[scene.named()].metadata.deletion_timestamp)
    assert await scene.replicas() == 0
    scene.leads = True
    finalizers.lead()
    await scene.gone()
    assert await scene.replicas() == 3


async def test_finalizer_api_server_restart_delays_it(apiserver: Cluster, api: Api, namespace: str) -> None:
    await crd.install(api)
    own = await connect(apiserver.kubeconfig)
    scene = Scene(own, namespace)
    await scene.start()
    await scene.deploy()
    await scene.make()
    scene.finalizers().configure({scene.named()})
    await scene.held()
    await scene.stand(**ASLEEP)
    scene.leads = False
    await scene.delete()
    apiserver.stop_apiserver()
    scene.leads = True
    apiserver.start_apiserver()
    await scene.gone()
    assert await scene.replicas() == 3
    await scene.end()
    await own.close()


async def restored(scene: Scene, *namespaces: str) -> list[RestoreOutcome]:
    """Restore the services of namespaces, by default of all; the Lease is in the namespace of the scene."""
    cluster = ClusterClient(scene.api, ContextOptions(system=scene.namespace))
    return await restore_services(cluster, namespaces, lambda _: None)


async def test_uninstall_restores_all_and_removes_finalizers(scene: Scene) -> None:
    await scene.deploy("asleep")
    await scene.deploy("awake", 2)
    for name, status in (("asleep", ASLEEP), ("awake", {"state": "Active"}), ("lost", ASLEEP), ("new", {})):
        await scene.make(name)
        await scene.api.patch(scene.at(name), {"metadata": {"finalizers": [FINALIZER]}}, MERGE_PATCH)
        await scene.stand(name, **status)
    await scene.api.call("DELETE", scene.at("asleep"))
    outcomes = await restored(scene, scene.namespace)
    assert sorted(outcomes, key=lambda one: one.name) == [
        RestoreOutcome(
            scene.named("asleep"), f"Deployment {scene.named('asleep')} was restored to 3 replicas" + REMOVED
        ),
        RestoreOutcome(scene.named("awake"), f"Deployment {scene.named('awake')} has 2 replicas" + REMOVED),
        RestoreOutcome(
            scene.named("lost"),
            f"nothing to restore: Deployment {scene.named('lost')} does not exist" + REMOVED,
        ),
        RestoreOutcome(scene.named("new"), "nothing to restore: never in force" + REMOVED),
    ]
    assert await scene.replicas("asleep") == 3
    await scene.gone("asleep")
    found = json.loads(await scene.api.get(path(API_VERSION, PLURAL, scene.namespace)))["items"]
    assert not any("finalizers" in one["metadata"] for one in found)
    again = await restored(scene, scene.namespace)
    assert {one.name for one in again} == {scene.named(name) for name in ("awake", "lost", "new")}
    assert not any(one.failed or REMOVED in one.text for one in again)


async def test_uninstall_of_all_namespaces_finds_this_one(scene: Scene) -> None:
    await scene.deploy()
    await scene.make()
    await scene.stand(**ASLEEP)
    outcomes = await restored(scene)
    assert scene.named() in {one.name for one in outcomes}
    assert await scene.replicas() == 3


async def test_uninstall_leaves_no_leader(scene: Scene) -> None:
    """Else a controller that still runs would put everything to sleep again."""
    terms = LeaseTiming(duration=2.0, margin=0.5, every=0.2)
    election = LeaderElection("zenvoy-0", terms)
    place = (scene.namespace, "zenvoy")
    elector = lease_lock.LeaderElector(scene.api, place, election, "10.0.0.1:18000", lambda _: None, lambda _: None)
    scene.run(elector.run())
    await until(elector.valid)
    index = elector.next_index()
    assert await restored(scene, scene.namespace) == []
    assert not elector.valid()
    await until(lambda: elector.holder == UNINSTALLER)
    await asyncio.sleep(3 * terms.duration)
    assert not elector.valid()
    found = json.loads(await scene.api.get(path("coordination.k8s.io/v1", "leases", *place[:1], place[1])))
    assert int(found["metadata"]["annotations"]["zenvoy.dev/next-index"]) > index
    assert found["spec"]["leaseDurationSeconds"] == FENCE_SECONDS
    nothing = lambda _: None  # noqa: E731
    installed_again = lease_lock.LeaderElector(
        scene.api, place, LeaderElection("zenvoy-1", terms), "10.0.0.2:18000", nothing, nothing
    )
    scene.run(installed_again.run())
    await until(installed_again.valid)
    assert not elector.valid()


async def _account(scene: Scene, cluster: Cluster, folder: Path) -> Path:
    """Create an account that may change ScaledServices and scale nothing."""
    rbac, meta = "rbac.authorization.k8s.io/v1", {"metadata": {"name": "limited"}}
    await scene.api.call("POST", path("v1", "serviceaccounts", scene.namespace), meta)
    rule = {"apiGroups": ["zenvoy.dev"], "resources": [PLURAL], "verbs": ["get", "list", "watch", "patch"]}
    await scene.api.call("POST", path(rbac, "roles", scene.namespace), {**meta, "rules": [rule]})
    subject = {"kind": "ServiceAccount", "name": "limited", "namespace": scene.namespace}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "limited"}
    await scene.api.call(
        "POST", path(rbac, "rolebindings", scene.namespace), {**meta, "roleRef": role, "subjects": [subject]}
    )
    kubeconfig = kubeconfig_of(cluster, scene.namespace, "limited", folder)
    client = await connect(kubeconfig)
    async with asyncio.timeout(GENEROUS_SECONDS):  # the authorizer hears of the binding in a moment
        while not await _may_list(client, scene.namespace):
            await asyncio.sleep(0.05)
    await client.close()
    return kubeconfig


async def _may_list(api: Api, namespace: str) -> bool:
    try:
        await api.get(path(API_VERSION, PLURAL, namespace))
    except ApiError:
        return False
    return True
