"""Labelled Services and their ScaledServices on a real API server: created, changed, deleted, and left alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import yaml

from reconciler.kubernetes.client.api import MERGE_PATCH, Api
from reconciler.kubernetes.client.errors import ApiError
from reconciler.kubernetes.config.provider import KubernetesProvider, Problems, ServiceConfigs
from reconciler.kubernetes.config.service_config import ServiceConfig
from reconciler.kubernetes.types.objects import path
from reconciler.kubernetes.types.scaled_service import API_VERSION, FINALIZER, KIND, PLURAL
from tests.cluster import crd
from tests.cluster.harness import Cluster
from tests.reconciler.kubernetes.config.test_annotations import BAD

LABEL = {"zenvoy.dev/enabled": "true"}
HTTP = {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(240):
        while not holds():
            await asyncio.sleep(0.02)


@dataclass
class Shop:
    """A namespace, and a catalogue that runs."""

    api: Api
    namespace: str
    leads: bool = True
    reported: tuple[ServiceConfigs, Problems] = field(default_factory=lambda: ({}, {}))
    catalogue: KubernetesProvider | None = None

    async def serve(
        self, spec: dict[str, Any] | None = None, labels: dict[str, str] | None = None, **annotations: str
    ) -> None:
        """Make the Service `web`, labelled, with annotations as in `idle_after="5m"`."""
        meta = {"name": "web", "labels": LABEL if labels is None else labels, "annotations": _keys(annotations)}
        await self.api.call("POST", path("v1", "services", self.namespace), {"metadata": meta, "spec": spec or HTTP})

    async def annotate(self, **annotations: str | None) -> None:
        await self.change({"metadata": {"annotations": _keys(annotations)}})

    async def change(self, patch: dict[str, Any]) -> None:
        await self.api.patch(path("v1", "services", self.namespace, "web"), patch, MERGE_PATCH)

    async def scale(self, patch: dict[str, Any]) -> None:
        await self.api.patch(path(API_VERSION, PLURAL, self.namespace, "web"), patch, MERGE_PATCH)

    async def get(self) -> dict[str, Any] | None:
        """Return the ScaledService `web`."""
        try:
            found: dict[str, Any] = json.loads(await self.api.get(path(API_VERSION, PLURAL, self.namespace, "web")))
        except ApiError:
            return None
        return found

    async def until(self, holds: Callable[[dict[str, Any] | None], object]) -> dict[str, Any]:
        """Wait until the ScaledService meets the condition, and return it."""
        async with asyncio.timeout(240):
            while not holds(found := await self.get()):
                await asyncio.sleep(0.02)
        return found or {}

    @property
    def key(self) -> str:
        return f"{self.namespace}/web"

    @property
    def entry(self) -> ServiceConfig | None:
        return self.reported[0].get(self.key)

    @property
    def problems(self) -> list[str]:
        return [str(problem) for problem in self.reported[1].get(self.key, ())]


def _keys(annotations: Any) -> dict[str, str | None]:
    return {f"zenvoy.dev/{name.replace('_', '-')}": value for name, value in annotations.items()}


@pytest.fixture
async def shop(api: Api, namespace: str) -> AsyncIterator[Shop]:
    await crd.install(api)
    shop = Shop(api, namespace)

    def reported(entries: ServiceConfigs, problems: Problems) -> None:
        shop.reported = entries, problems

    shop.catalogue = catalogue = KubernetesProvider(api, lambda: shop.leads, reported)
    task = asyncio.create_task(catalogue.run())
    await until(lambda: catalogue.synced)
    yield shop
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_label_creates_a_scaled_service(shop: Shop) -> None:
    await shop.serve(idle_after="1m", hosts="a.example,b.example", target="StatefulSet/db")
    made = await shop.until(bool)
    assert made["metadata"]["labels"] == {"zenvoy.dev/managed": "true"}
    (owner,) = made["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["controller"]) == ("Service", "web", True)
    assert made["spec"]["idleAfter"] == "1m"
    assert made["spec"]["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db"}
    await until(lambda: shop.entry)
    assert shop.entry
    assert shop.entry.spec.hosts[-2:] == ("a.example", "b.example")
    assert shop.entry.spec.idle_after == 60


async def test_annotations_changed_and_removed_are_applied(shop: Shop) -> None:
    await shop.serve(idle_after="1m", max_held="5", hosts="a.example")
    before = await shop.until(bool)
    await shop.annotate(idle_after="2m", max_held=None, hosts=None)
    after = await shop.until(lambda item: item and item["spec"]["idleAfter"] == "2m")
    assert after["spec"]["maxHeld"] == 1024
    assert "hosts" not in after["spec"]
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    await until(lambda: shop.entry and shop.entry.spec.idle_after == 120)


async def test_annotations_absent_leave_fields_to_others(shop: Shop) -> None:
    await shop.serve(idle_after="1m")
    await shop.until(bool)
    await shop.scale({"spec": {"paused": True}})
    await shop.annotate(idle_after="2m")
    after = await shop.until(lambda item: item and item["spec"]["idleAfter"] == "2m")
    assert after["spec"]["paused"] is True


async def test_annotations_overrule_other_writers(shop: Shop) -> None:
    await shop.serve(idle_after="1m")
    await shop.until(bool)
    await shop.scale({"spec": {"idleAfter": "7m"}})
    await shop.until(lambda item: item and item["spec"]["idleAfter"] == "1m")


async def test_annotations_invalid_keep_the_last_good_ones(shop: Shop) -> None:
    await shop.serve(idle_after="1m")
    await shop.until(bool)
    await until(lambda: shop.entry and not shop.problems)
    await shop.annotate(idle_after="5", max_hold="3")
    await until(lambda: shop.problems)
    assert shop.problems == [
        "zenvoy.dev/idle-after: 5 has no unit; use for example 5s or 5m",
        "zenvoy.dev/max-hold: unknown annotation; did you mean zenvoy.dev/max-held?",
    ]
    assert shop.entry
    assert shop.entry.spec.idle_after == 60
    await shop.annotate(idle_after="3m", max_hold=None)
    await until(lambda: shop.entry and shop.entry.spec.idle_after == 180 and not shop.problems)


async def test_annotations_each_problem_is_reported(shop: Shop) -> None:
    await shop.serve(idle_after="1m")
    await shop.until(bool)
    await until(lambda: shop.entry and not shop.problems)
    before = (await shop.get() or {})["spec"]

    def is_reported(problem: str) -> bool:
        return problem in shop.problems

    for key, value, problem in BAD:
        of_old = "1m" if key == "idle-after" else None
        await shop.annotate(**{key: value})
        said = f"zenvoy.dev/{key}: {problem}".replace("shop/web", shop.key)
        await until(partial(is_reported, said))
        await shop.annotate(**{key: of_old})
    await until(lambda: not shop.problems)
    assert (await shop.get() or {})["spec"] == before


async def test_annotations_invalid_from_the_start_are_reported(shop: Shop) -> None:
    await shop.serve(protocol="tcp", paused="perhaps")
    await shop.until(bool)
    await until(lambda: shop.problems)
    entry = shop.entry
    assert entry is None
    assert shop.problems == [
        "zenvoy.dev/paused: 'perhaps' is neither true nor false; use true or false",
        "zenvoy.dev/listen: required for tcp services, which are identified by port; set for example "
        "zenvoy.dev/listen: 5432",
    ]
    await shop.annotate(listen="5432", paused="true")
    await until(lambda: shop.entry and not shop.problems)
    assert shop.entry
    assert shop.entry.spec.listen == "0.0.0.0:5432"
    assert shop.entry.spec.paused


async def test_label_removed_deletes_the_scaled_service(shop: Shop) -> None:
    await shop.serve()
    await shop.until(bool)
    await shop.change({"metadata": {"labels": {"zenvoy.dev/enabled": None}}})
    await shop.until(lambda item: item is None)
    await until(lambda: shop.entry is None)


async def test_service_deleted_deletes_the_scaled_service(shop: Shop) -> None:
    await shop.serve()
    await shop.until(bool)
    await shop.api.call("DELETE", path("v1", "services", shop.namespace, "web"))
    await shop.until(lambda item: item is None)
    await until(lambda: shop.entry is None and not shop.problems)


async def test_service_recreated_gets_a_new_scaled_service(shop: Shop) -> None:
    await shop.serve(idle_after="1m")
    before = await shop.until(bool)
    await shop.api.call("DELETE", path("v1", "services", shop.namespace, "web"))
    await shop.serve(idle_after="2m")
    await shop.until(lambda item: item and item["metadata"]["uid"] != before["metadata"]["uid"])
    await until(lambda: shop.entry and shop.entry.spec.idle_after == 120)


async def test_target_annotation_changed_restores_the_first(shop: Shop) -> None:
    await shop.serve()
    await shop.until(bool)
    await shop.scale({"metadata": {"finalizers": [FINALIZER]}})
    await until(lambda: shop.entry)
    await shop.annotate(target="StatefulSet/db")
    await shop.until(lambda item: item and "deletionTimestamp" in item["metadata"])
    await until(lambda: shop.entry and shop.entry.spec.departing)
    await shop.scale({"metadata": {"finalizers": None}})
    await shop.until(lambda item: item and item["spec"]["scaleTargetRef"]["kind"] == "StatefulSet")
    await until(lambda: shop.entry and shop.entry.target.kind == "StatefulSet")


async def test_scaled_service_of_a_person_is_left_alone(shop: Shop) -> None:
    own = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "web"}, "spec": {"idleAfter": "9m"}}
    await shop.api.call("POST", path(API_VERSION, PLURAL, shop.namespace), own)
    await shop.serve(idle_after="1m")
    await until(lambda: shop.entry and shop.problems)
    assert shop.problems == [
        f"zenvoy.dev/enabled: ScaledService {shop.key} exists and was not created from this label, so it is not "
        "changed; remove the label from the Service, or delete the ScaledService"
    ]
    await shop.change({"metadata": {"labels": {"zenvoy.dev/enabled": None}}})
    await until(lambda: not shop.problems)
    found = await shop.get()
    assert found
    assert found["spec"]["idleAfter"] == "9m"
    assert "labels" not in found["metadata"]


async def test_provider_follower_writes_nothing(shop: Shop) -> None:
    shop.leads = False
    await shop.serve()
    await shop.api.call("POST", path("v1", "services", shop.namespace), {"metadata": {"name": "x"}, "spec": HTTP})
    other = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "x"}}
    await shop.api.call("POST", path(API_VERSION, PLURAL, shop.namespace), other)
    await until(lambda: f"{shop.namespace}/x" in shop.reported[0])
    assert await shop.get() is None
    shop.leads = True
    assert shop.catalogue
    shop.catalogue.lead()
    await shop.until(bool)


async def test_provider_api_server_restart_is_survived(shop: Shop, apiserver: Cluster) -> None:
    await shop.serve()
    await shop.until(bool)
    await until(lambda: shop.entry)
    apiserver.stop_apiserver()
    assert shop.entry
    await asyncio.to_thread(apiserver.start_apiserver)  # meanwhile it is noticed which connections are cut
    await shop.annotate(idle_after="1m")
    await until(lambda: shop.entry and shop.entry.spec.idle_after == 60)


async def test_provider_refused_write_is_reported_and_retried(shop: Shop) -> None:
    quotas = path("v1", "resourcequotas", shop.namespace)
    none_of_them = {"hard": {"count/scaledservices.zenvoy.dev": "0"}}
    await shop.api.call("POST", quotas, {"metadata": {"name": "none"}, "spec": none_of_them})
    status = {"hard": none_of_them["hard"], "used": none_of_them["hard"]}  # the controller takes minutes to do this
    await shop.api.patch(f"{quotas}/none/status", {"status": status}, MERGE_PATCH)
    await shop.serve()
    await until(lambda: any("exceeded quota" in problem for problem in shop.problems))
    (problem,) = shop.reported[1][shop.key]
    assert (problem.reason, problem.field, problem.on) == ("Refused", "zenvoy.dev/enabled", "Service")
    await shop.api.call("DELETE", f"{quotas}/none")
    await shop.until(bool)
    await until(lambda: shop.entry and not shop.problems)


async def test_service_as_people_write_it_is_accepted(shop: Shop, control_plane: Cluster) -> None:
    manifest = """
        apiVersion: v1
        kind: Service
        metadata:
          name: web
          labels: {zenvoy.dev/enabled: "true"}
          annotations:
            zenvoy.dev/idle-after: 10m
            zenvoy.dev/wake-timeout: 3m
            zenvoy.dev/replicas: "2"
            zenvoy.dev/paused: "true"
        spec:
          selector: {app: web}
          ports: [{port: 80, appProtocol: kubernetes.io/h2c}]
    """
    control_plane.kubectl("apply", "-n", shop.namespace, "-f", "-", given=json.dumps(yaml.safe_load(manifest)))
    await until(lambda: shop.entry)
    assert shop.entry
    spec = shop.entry.spec
    assert (spec.protocol, spec.idle_after, spec.wake_timeout, spec.replicas, spec.paused) == ("h2c", 600, 180, 2, True)
