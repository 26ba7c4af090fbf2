"""Objects that people change or delete by hand: others are not affected, and the changes are corrected."""

from __future__ import annotations

import json
import signal
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from reconciler.kubernetes.types.scaled_service import COMMAND_ANNOTATION
from tests.cluster.replicas.act import Act
from tests.cluster.replicas.scene import PATIENCE_SECONDS, Scene
from tests.e2e.harness import until


def status(scene: Scene, name: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(scene.kubectl("get", "ssvc", name, "-o", "jsonpath={.status}") or "{}")
    return found


def write_status(scene: Scene, name: str, **said: object) -> None:
    patch = json.dumps({"status": said})
    scene.kubectl("patch", "ssvc", name, "--subresource=status", "--type=merge", "-p", patch)


@pytest.mark.parametrize("address", ["rubbish", "127.x.0.1:{port}", "of another"])
def test_status_invalid_at_start_is_replaced(
    scene: Scene, tmp_path: Path, pool: ThreadPoolExecutor, address: str
) -> None:
    number = sum(map(ord, address))
    act, other = (Act(scene, f"{name}-{number}", tmp_path, pool) for name in ("rubbish", "other"))
    act.bring("ScaledToZero")
    other.bring("ScaledToZero")
    theirs = str(until("its status", lambda: status(scene, other.name).get("holdAddress")))
    port = theirs.rpartition(":")[2]
    said = theirs if address == "of another" else address.format(port=port)
    for name in scene.replicas:
        scene.ends(name, signal.SIGKILL)
    write_status(scene, act.name, holdAddress=said, since="9999-12-31T00:00:00Z", replicas=0, reason="by hand")
    for name in scene.replicas:
        scene.start(name)
    until("one leads", lambda: any(scene.is_ready(name) and scene.leader() == name for name in scene.replicas), 120)
    until("all serve", lambda: all(scene.is_ready(name) for name in scene.replicas), PATIENCE_SECONDS)

    def addresses() -> set[object]:
        return {status(scene, one.name).get("holdAddress", "rubbish") for one in (act, other)}

    until(
        "each has an address of its own",
        lambda: len(addresses() - {"rubbish", "127.x.0.1:" + port}) == 2,
        PATIENCE_SECONDS,
    )

    def answers(name: str) -> bool:
        return scene.request(name, "/").body.decode() == f"{name} /\n"

    if address != "of another":
        assert answers(other.name), "a service that kept its address is held at it, regardless of connected holders"
    for name in (other.name, act.name):
        until(f"{name} answers", partial(answers, name))
    act.lives_on()
    other.lives_on()


def test_status_written_by_somebody_else_is_corrected(scene: Scene, tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    act = Act(scene, "written", tmp_path, pool)
    act.bring("ScaledToZero")

    # The leader writes the status a moment after the state that it serves, and after each command.
    def complete() -> dict[str, object] | None:
        found = json.loads(scene.kubectl("get", "ssvc", act.name, "-o", "json"))
        its, command = found["status"], found["metadata"]["annotations"][COMMAND_ANNOTATION]
        return its if its.get("zeroed") and its.get("observedCommand") == command else None

    before = until("it reports that nothing runs", complete)
    write_status(scene, act.name, state="Nonsense", holdAddress="1.2.3.4:5", replicas=99, zeroed=False)
    until("it says what is", lambda: status(scene, act.name) == before)
    act.lives_on()
    assert scene.wanted(act.name) == 1


@pytest.mark.parametrize("state", ["ScaledToZero", "Active", "Idle"])
def test_scaled_service_recreated_at_once_works(
    scene: Scene, tmp_path: Path, pool: ThreadPoolExecutor, state: str
) -> None:
    act = Act(scene, f"again-{state.lower()}", tmp_path, pool)
    act.bring(state)
    uid = scene.kubectl("get", "ssvc", act.name, "-o", "jsonpath={.metadata.uid}")
    scene.kubectl("delete", "ssvc", act.name, "--wait=false")

    def has_come_again() -> bool:
        now = scene.kubectl("get", "ssvc", act.name, "--ignore-not-found", "-o", "jsonpath={.metadata.uid}")
        return now not in ("", uid)

    until("it is made again of its Service", has_come_again)
    scene.wait(act.name, "Active", "Idle")
    assert scene.wanted(act.name) == 1
    act.answered()
    act.lives_on()


@pytest.mark.parametrize("state", ["Waking", "Draining"])
def test_lease_deleted_a_replica_leads_again(
    scene: Scene, tmp_path: Path, pool: ThreadPoolExecutor, state: str
) -> None:
    act = Act(scene, f"lease-{state.lower()}", tmp_path, pool)
    act.bring(state)
    scene.kubectl("delete", "lease", "zenvoy")
    until("one leads", scene.leader)
    act.answered()
    act.lives_on()


def test_objects_of_extreme_size_are_survived(scene: Scene, tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    scene.serve("long")
    note = tmp_path / "note.json"
    note.write_text(json.dumps({"metadata": {"annotations": {"zenvoy.dev/hosts": "x" * 100_000}}}))
    scene.kubectl("patch", "service", "long", "--type=merge", "--patch-file", str(note))
    kind = {"apiVersion": "zenvoy.dev/v1alpha1", "kind": "ScaledService"}
    scene.apply({**kind, "metadata": {"name": "n" * 250}, "spec": {"service": "long"}})

    def reason(name: str) -> str:
        path = "jsonpath={.status.conditions[?(@.type=='Ready')].reason}"
        return scene.kubectl("get", "ssvc", name, "-o", path)

    until("the annotation is reported", lambda: reason("long") == "BadAnnotation")
    until("the name is reported", lambda: reason("n" * 250) == "BadSpec")
    act = Act(scene, "short", tmp_path, pool)
    act.bring("ScaledToZero")
    act.lives_on()
    scene.kubectl("delete", "ssvc", "n" * 250)


def test_endpoint_with_invalid_address_is_survived(scene: Scene, tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    """The API server takes it, with a warning; Envoy would not."""
    scene.serve("octal")
    scene.apply(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "octal-by-hand", "labels": {"kubernetes.io/service-name": "octal"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}],
            "endpoints": [{"addresses": ["010.0.0.1"]}],
        }
    )
    act = Act(scene, "decimal", tmp_path, pool)
    act.bring("ScaledToZero")
    act.lives_on()
    assert scene.request("octal").status == 200


def test_unknown_replicas_let_nothing_sleep(scene: Scene, tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    act = Act(scene, "unlisted", tmp_path, pool)
    act.bring("Idle")
    listed = json.loads(scene.kubectl("get", "endpointslice", "replicas", "-o", "json"))
    scene.kubectl("delete", "endpointslice", "replicas")
    unknown = "the list of replicas is not known"
    until("the leader is in doubt", lambda: scene.unknown() == unknown)
    scene.command(act.name, "sleep")
    until("the command was heard", lambda: "observedCommand" in status(scene, act.name))
    assert scene.wanted(act.name) == 1
    assert scene.request(act.name, "/").status == 200
    del listed["metadata"]["resourceVersion"], listed["metadata"]["uid"]
    scene.apply(listed)
    act.lives_on()
