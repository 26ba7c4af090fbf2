"""ScaledServices that are deleted while clients are connected: the clients are served, then the object is removed."""

from __future__ import annotations

import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cluster.replicas.act import STAYS, Act
from tests.cluster.replicas.scene import PATIENCE_SECONDS, Scene
from tests.e2e.harness import until


def uid(scene: Scene, name: str) -> str:
    return scene.kubectl("get", "ssvc", name, "--ignore-not-found", "-o", "jsonpath={.metadata.uid}")


def delete(scene: Scene, name: str) -> None:
    scene.kubectl("delete", "ssvc", name, "--wait=false")


def take_the_label_off(scene: Scene, name: str) -> None:
    scene.kubectl("label", "service", name, "zenvoy.dev/enabled-")


WAYS = {"delete": delete, "label": take_the_label_off}


def is_going(scene: Scene, name: str) -> bool:
    return bool(scene.kubectl("get", "ssvc", name, "-o", "jsonpath={.metadata.deletionTimestamp}"))


def events(scene: Scene, name: str) -> list[str]:
    found = json.loads(scene.kubectl("get", "events", "-o", "json"))["items"]
    return [one["message"] for one in found if one["involvedObject"].get("name") == name]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("where", ["leader", "follower"])
def test_deletion_serves_waiting_clients_first(
    scene: Scene, tmp_path: Path, pool: ThreadPoolExecutor, where: str, way: str
) -> None:
    scene.proxy_joins(scene.leader() if where == "leader" else scene.follower())
    act = Act(scene, f"waits-{where}-{way}", tmp_path, pool)
    act.bring("Waking")
    before = uid(scene, act.name)
    WAYS[way](scene, act.name)
    until("it is being deleted", lambda: is_going(scene, act.name))
    late = act.ask("/late")
    assert uid(scene, act.name) == before
    assert act.under_way
    assert not act.under_way.done()
    act.answered()
    assert late.result().body.decode() == f"{act.name} /late\n"
    until("it has gone", lambda: uid(scene, act.name) != before, PATIENCE_SECONDS)
    assert scene.wanted(act.name) == 1


def test_deletion_asleep_serves_a_new_client(scene: Scene, tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    act = Act(scene, "comes", tmp_path, pool)
    act.bring("ScaledToZero")
    scene.kubelet.hold(act.name)
    before = uid(scene, act.name)
    delete(scene, act.name)
    scene.wait(act.name, "Waking")
    act.under_way = act.ask()
    until("a client is waiting", lambda: scene.view(act.name).get("held"))
    act.answered()
    until("it has gone", lambda: uid(scene, act.name) != before, PATIENCE_SECONDS)


@pytest.mark.parametrize("state", ["Active", "Draining"])
def test_deletion_requests_in_flight_continue(
    scene: Scene, tmp_path: Path, pool: ThreadPoolExecutor, state: str
) -> None:
    act = Act(scene, f"flies-{state.lower()}", tmp_path, pool)
    act.bring(state)
    take_the_label_off(scene, act.name)
    until("it has gone", lambda: not uid(scene, act.name), PATIENCE_SECONDS)
    until("no way leads there", lambda: scene.request(act.name).status == 404)
    assert act.under_way
    assert not act.under_way.done()
    act.answered()
    assert scene.wanted(act.name) == 1
    assert not [cut for cut in scene.kubelet.cut if cut.startswith(f"{act.name} ")]


def test_deletion_of_an_unready_service_waits_for_wake_timeout(
    scene: Scene, tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    scene.serve("never", **{**STAYS, "wake_timeout": "5s"})
    act = Act(scene, "never", tmp_path, pool)
    act.sleep()
    scene.kubelet.hold("never")
    act.under_way = act.ask()
    scene.wait("never", "Waking")
    take_the_label_off(scene, "never")
    until("it has gone", lambda: not uid(scene, "never"), PATIENCE_SECONDS)
    reply = act.under_way.result()
    name = f"{scene.namespace}/never"
    assert reply.status == 503
    assert reply.body.decode().startswith(f"{name} is no longer served"), reply
    said = "still needed after its wakeTimeout, deleting anyway: "
    until("an Event says so", lambda: any(one.startswith(said) for one in events(scene, "never")))
    assert scene.wanted("never") == 1


def test_deletion_with_its_target_is_not_delayed(scene: Scene, tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    """As in the deletion of a namespace."""
    act = Act(scene, "together", tmp_path, pool)
    act.bring("Waking")
    scene.kubectl("delete", "deployment,service,ssvc", act.name, "--wait=false")
    until("it has gone", lambda: not uid(scene, act.name))
    assert act.under_way
    assert act.under_way.result().status == 503


@pytest.mark.parametrize("state", ["ScaledToZero", "Idle"])
def test_deletion_of_a_labelled_service_is_not_noticed(
    scene: Scene, tmp_path: Path, pool: ThreadPoolExecutor, state: str
) -> None:
    act = Act(scene, f"anew-{state.lower()}", tmp_path, pool)
    act.bring(state)
    before, over = uid(scene, act.name), threading.Event()

    def ask_again_and_again() -> Counter[int]:
        asked: Counter[int] = Counter()
        while not over.is_set():
            asked[scene.request(act.name).status] += 1
        return asked

    asking = pool.submit(ask_again_and_again)
    delete(scene, act.name)
    until("it is made anew", lambda: uid(scene, act.name) not in ("", before), PATIENCE_SECONDS)
    until("its state is reported", lambda: "holdAddress" in scene.kubectl("get", "ssvc", act.name, "-o", "json"))
    over.set()
    assert asking.result().keys() == {200}
    act.lives_on()
