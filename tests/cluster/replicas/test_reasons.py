"""The reason of a stalled wake in each place that shows it, once Kubernetes knows it.

The pod is made by the real controllers; its status is written by hand, as a kubelet does.
"""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.harness import ToolFailed
from tests.cluster.replicas.act import Act
from tests.cluster.replicas.scene import HTTP, PATIENCE_SECONDS, Scene
from tests.cluster.stage import container, waiting
from tests.e2e.harness import Reply, until

CRASH = {"terminated": {"exitCode": 3, "reason": "Error"}}
REASONS: dict[str, tuple[dict[str, Any], str]] = {
    "ImagePullBackOff": (container(waiting("ImagePullBackOff", "Back-off: not found")), "image registry.example/app:1"),
    "CrashLoopBackOff": (
        container(waiting("CrashLoopBackOff", "back-off"), restartCount=2, lastState=CRASH),
        "ended with exit code 3, restarted 2 times",
    ),
}


class Pods:
    """The pods that the controllers make for a service, each with the status of a container that does not start."""

    def __init__(self, scene: Scene, name: str, status: dict[str, Any]) -> None:
        self._scene, self._chosen = scene, ("-l", f"app={name}", "-o", "json")
        self._patch = json.dumps({"status": {"containerStatuses": [status]}})
        self._patched: set[str] = set()

    def fail(self) -> bool:
        """Write the status of new pods, and return whether there is a pod that has it."""
        items = json.loads(self._scene.kubectl("get", "pods", *self._chosen))["items"]
        live = {pod["metadata"]["name"] for pod in items if "deletionTimestamp" not in pod["metadata"]}
        for pod in live - self._patched:
            with suppress(ToolFailed):  # it has been deleted since
                self._scene.kubectl("patch", "pod", pod, "--subresource=status", "--type=merge", "-p", self._patch)
                self._patched.add(pod)
        return bool(live & self._patched)


def places(scene: Scene, name: str, reason: str) -> dict[str, Callable[[], str]]:
    """Return the places to look at, each with a function that returns its reason, if any."""

    def condition() -> str:
        path = "jsonpath={.status.conditions[?(@.type=='Stalled')]}"
        stalled = json.loads(scene.kubectl("get", "ssvc", name, "-o", path) or "{}")
        wanted = {"status": "True", "reason": reason}
        return f"{reason}: {stalled['message']}" if wanted.items() <= stalled.items() else ""

    def events() -> str:
        ours = f"involvedObject.name={name},reason=WakeStalled"
        return scene.kubectl("get", "events", "--field-selector", ours, "-o", "jsonpath={.items[*].message}")

    def metrics() -> str:
        series = f'zenvoy_service_stalled_info{{service="{scene.namespace}/{name}",reason="{reason}"}} 1'
        try:
            with urllib.request.urlopen(
                f"http://{scene.replicas[scene.leading()]}:{HTTP}/metrics", timeout=5
            ) as answer:
                return reason if series in answer.read().decode() else ""
        except OSError:
            return ""

    def stalled(replica: str) -> str:
        return str(scene.view(name, replica).get("stalled"))

    return {
        "condition": condition,
        "kubectl get": lambda: scene.kubectl("get", "ssvc", name, "-o", "wide"),
        "Event": events,
        "metrics": metrics,
        **{replica: partial(stalled, replica) for replica in scene.replicas},
    }


@pytest.mark.parametrize(
    ("reason", "where", "details"), [("ImagePullBackOff", "leader", False), ("CrashLoopBackOff", "follower", True)]
)
def test_reason_reaches_every_replica(
    scene: Scene, tmp_path: Path, pool: ThreadPoolExecutor, reason: str, where: str, details: bool
) -> None:
    """`details`: clients may read the whole reason, and not its class and reference alone."""
    scene.proxy_joins(scene.leading() if where == "leader" else scene.follower())
    act = Act(scene, f"reason-{reason.lower()}", tmp_path, pool)
    timing = {"idle_after": "10m", "wake_timeout": "5s", "hold_timeout": "5s"}
    scene.serve(act.name, **timing, refusal_details=str(details).lower())
    act.sleep()
    scene.kubelet.hold(act.name)
    assert act.ask().result().status == 503, "it does not start, and nothing reports the reason"
    status, words = REASONS[reason]
    pods, looks = Pods(scene, act.name, status), places(scene, act.name, reason)

    clients = [act.ask()]  # a client is always waiting, until long after the wake has timed out

    def one_refused() -> Reply:
        clients.append(act.ask())
        return clients.pop(0).result()

    def is_everywhere() -> bool:
        pods.fail()
        if clients[0].done():
            one_refused()
        return all(reason in look() for look in looks.values())

    try:
        until("it is seen everywhere", is_everywhere, PATIENCE_SECONDS)
    except AssertionError as error:
        seen = {place: look() for place, look in looks.items()}
        raise AssertionError(f"{error}: {seen}") from None
    assert words in looks["condition"]()
    assert words in looks["Event"]()
    assert one_refused().status == 503  # it may have come before the reason was known
    for _ in range(4):
        pods.fail()
        refused = one_refused()
        assert refused.status == 503
        body, reference = refused.body.decode(), scene.view(act.name)["reference"]
        assert re.search(rf": {reason}\b.* \(reference {reference}\)$", body.strip()), body
        assert (words in body) == details, body
    scene.kubelet.let_go(act.name)
    act.lives_on()
