"""Events at a real API server, as `kubectl describe` and `kubectl get events` show them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from reconciler.core.reasons import Problem, Reason
from reconciler.core.record import State, Transition
from reconciler.kubernetes.client.api import MERGE_PATCH, Api, connect
from reconciler.kubernetes.config.service_config import SERVICE
from reconciler.kubernetes.status.event_messages import EventMessage, transition_message, wake_message
from reconciler.kubernetes.status.event_recorder import EventRecorder
from reconciler.kubernetes.types.builtin import Service
from reconciler.kubernetes.types.objects import ObjectRef, decoder, path
from tests.cluster import crd
from tests.cluster.harness import Cluster
from tests.cluster.rights import kubeconfig_of
from tests.cluster.written import GENEROUS_SECONDS, Written

BAD = Problem(
    Reason.BAD_ANNOTATION, "zenvoy.dev/idle-after", "'5 parsecs' is not a duration", "write it as 5m", on=SERVICE
)
TAKEN = Problem(Reason.HOST_TAKEN, "spec.hosts", "shop.example.com is that of shop/older", "take another")


class Scene(Written):
    def events(self, api: Api | None = None) -> EventRecorder:
        self.services: dict[str, Service] = {}
        made = EventRecorder(api or self.api, self.items, self.services, lambda: True, "zenvoy-reconciler-0")
        self.run(made.run())
        return made

    def moved(self, source: State, event: str, target: State, reason: str) -> Transition:
        return Transition(self.named(), source, event, target, reason, 0.0)

    async def listed(self) -> list[dict[str, Any]]:
        found = json.loads(await self.api.get(path("events.k8s.io/v1", "events", self.namespace)))["items"]
        return sorted(found, key=lambda one: str(one["eventTime"]))


def saw(events: EventRecorder, moved: Transition, peer: str | None = None) -> None:
    events.record(moved.service, transition_message(moved, peer))


@pytest.fixture
async def scene(api: Api, namespace: str) -> AsyncIterator[Scene]:
    await crd.install(api)
    scene = Scene(api, namespace)
    await scene.start()
    await scene.make()
    yield scene
    await scene.end()


async def test_events_tell_the_life_of_a_service(scene: Scene, control_plane: Cluster) -> None:
    events = scene.events()
    saw(events, scene.moved(State.Active, "Quiet", State.Idle, "no traffic"))
    saw(events, scene.moved(State.Idle, "IdleElapsed", State.Draining, "idle for all of idleAfter"))
    saw(events, scene.moved(State.Draining, "Drained", State.ScaledToZero, "idle for all of idleAfter"))
    saw(events, scene.moved(State.ScaledToZero, "DemandSeen", State.Waking, "a client is waiting"), "10.1.2.3:4567")
    saw(
        events, scene.moved(State.Waking, "WakeStalled", State.Waking, "ImagePullBackOff: image web:1 cannot be pulled")
    )
    parts = {"signal": 0.002, "scale": 0.011, "firstByte": 0.001}
    events.record(scene.named(), wake_message(1.5, parts, "10.1.2.3:4567"))
    assert await events.flush(GENEROUS_SECONDS)
    described = control_plane.kubectl("describe", "ssvc", "web", "-n", scene.namespace).partition("Events:")[2]
    rows = [line.split(None, 4) for line in described.splitlines()[3:]]
    assert sorted((row[0], row[1], row[4]) for row in rows) == sorted(
        [
            ("Normal", "Idle", "no traffic"),
            ("Normal", "Draining", "idle for all of idleAfter"),
            ("Normal", "ScaledToZero", "idle for all of idleAfter"),
            ("Normal", "WakeRequested", "a client is waiting, first client 10.1.2.3:4567"),
            ("Warning", "WakeStalled", "ImagePullBackOff: image web:1 cannot be pulled"),
            (
                "Normal",
                "Woken",
                "awake after 1.50 s, first client 10.1.2.3:4567: signal 2 ms, scale 11 ms, first byte 1 ms",
            ),
        ]
    )
    assert {row[3] for row in rows} == {"zenvoy.dev/reconciler"}


async def test_events_repeated_are_one_object(scene: Scene, control_plane: Cluster) -> None:
    events = scene.events()
    for number in range(4):
        saw(events, scene.moved(State.Idle, "Traffic", State.Active, f"{number} requests moved"))
        assert await events.flush(GENEROUS_SECONDS)
    [event] = await scene.listed()
    assert (event["note"], event["series"]["count"]) == ("0 requests moved", 4)
    described = control_plane.kubectl("describe", "ssvc", "web", "-n", scene.namespace).partition("Events:")[2]
    assert "(x4 over " in described


async def test_events_counted_before_the_first_write_are_kept(scene: Scene) -> None:
    events = scene.events()
    for _ in range(3):
        saw(events, scene.moved(State.Active, "Quiet", State.Idle, "no traffic"))
    assert await events.flush(GENEROUS_SECONDS)
    [event] = await scene.listed()
    assert event["series"]["count"] == 3


async def test_events_expired_are_written_again(scene: Scene) -> None:
    events = scene.events()
    quiet = scene.moved(State.Active, "Quiet", State.Idle, "no traffic")
    saw(events, quiet)
    assert await events.flush(GENEROUS_SECONDS)
    await scene.api.call("DELETE", path("events.k8s.io/v1", "events", scene.namespace))
    saw(events, quiet)
    assert await events.flush(GENEROUS_SECONDS)
    [event] = await scene.listed()
    assert "series" not in event


async def test_events_annotation_problem_is_on_the_service(scene: Scene, control_plane: Cluster) -> None:
    body = {"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}
    made = await scene.api.call("POST", path("v1", "services", scene.namespace), body)
    events = scene.events()
    scene.services[scene.named()] = decoder(Service)(made)
    events.problems(scene.named(), [BAD, TAKEN])
    assert await events.flush(GENEROUS_SECONDS)
    of_service = control_plane.kubectl("describe", "service", "web", "-n", scene.namespace).partition("Events:")[2]
    assert "BadAnnotation" in of_service
    assert "zenvoy.dev/idle-after: '5 parsecs' is not a duration; write it as 5m" in of_service
    assert "HostTaken" not in of_service
    of_ours = control_plane.kubectl("describe", "ssvc", "web", "-n", scene.namespace).partition("Events:")[2]
    assert "spec.hosts: shop.example.com is that of shop/older; take another" in of_ours
    assert "BadAnnotation" not in of_ours


async def test_events_longest_texts_are_accepted(scene: Scene) -> None:
    events = scene.events()
    item = scene.items[scene.named()].metadata
    long = ObjectRef("zenvoy.dev/v1alpha1", "ScaledService", item.namespace, "a" * 253, item.uid)
    events.record_about(long, EventMessage("WakeStalled", "é" * 5000, "Waking", warning=True))
    assert await events.flush(GENEROUS_SECONDS)
    assert [event["note"][-2:] for event in await scene.listed()] == ["é…"]


async def test_events_of_a_deleted_namespace_are_dropped(scene: Scene) -> None:
    events = scene.events()
    gone = ObjectRef("zenvoy.dev/v1alpha1", "ScaledService", "no-such-namespace", "web", "uid")
    answers: list[str] = []
    scene.api.called = lambda method, code: answers.append(code)
    with capture_logs() as logs:
        for number in range(3):
            events.record_about(gone, EventMessage("Idle", f"{number}", "Idle"))
        saw(events, scene.moved(State.Active, "Quiet", State.Idle, "no traffic"))
        assert await events.flush(GENEROUS_SECONDS)
    assert answers.count("404") == 3
    [reported] = logs
    assert reported["error"] == '404 NotFound: namespaces "no-such-namespace" not found'
    assert len(await scene.listed()) == 1


async def test_events_in_a_terminating_namespace_are_dropped(scene: Scene) -> None:
    configmaps = path("v1", "configmaps", scene.namespace)
    stays = {"metadata": {"name": "stays", "finalizers": ["test.example/stays"]}}
    await scene.api.call("POST", configmaps, stays)
    regarding = scene.items[scene.named()].metadata
    await scene.api.call("DELETE", f"/api/v1/namespaces/{scene.namespace}")
    events = scene.events()
    answers: list[str] = []
    scene.api.called = lambda method, code: answers.append(code)
    with capture_logs() as logs:
        going = ObjectRef("zenvoy.dev/v1alpha1", "ScaledService", scene.namespace, "web", regarding.uid)
        events.record_about(going, EventMessage("Restored", "Deployment shop/web has 2 replicas", "Restoring"))
        assert await events.flush(GENEROUS_SECONDS)
    assert answers == ["403"]
    await scene.api.patch(f"{configmaps}/stays", {"metadata": {"finalizers": None}}, MERGE_PATCH)
    assert logs == []


async def test_events_need_create_and_patch_only(scene: Scene, control_plane: Cluster, tmp_path: Path) -> None:
    rule = {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]}
    rbac = "rbac.authorization.k8s.io/v1"
    await scene.api.call("POST", path("v1", "serviceaccounts", scene.namespace), {"metadata": {"name": "teller"}})
    role = {"metadata": {"name": "teller"}, "rules": [rule]}
    await scene.api.call("POST", path(rbac, "roles", scene.namespace), role)
    binding = {
        "metadata": {"name": "teller"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "teller"},
        "subjects": [{"kind": "ServiceAccount", "name": "teller", "namespace": scene.namespace}],
    }
    await scene.api.call("POST", path(rbac, "rolebindings", scene.namespace), binding)
    teller = await connect(kubeconfig_of(control_plane, scene.namespace, "teller", tmp_path))
    events = scene.events(teller)
    quiet = scene.moved(State.Active, "Quiet", State.Idle, "no traffic")
    async with asyncio.timeout(GENEROUS_SECONDS):
        while not (found := await scene.listed()):  # the authorizer hears of the binding in a moment
            saw(events, quiet)
            assert await events.flush(GENEROUS_SECONDS)
    saw(events, quiet)
    assert await events.flush(GENEROUS_SECONDS)
    await teller.close()
    assert (await scene.listed())[0]["series"]["count"] == 2
    assert found[0]["regarding"]["name"] == "web"
