"""The reason of a stalled wake in each place that shows it, as soon as Kubernetes knows it.

The pod is made by the real controllers; its status is written by hand, as a kubelet does.
"""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.replicas.act import Act
from tests.cluster.replicas.scene import HTTP, Scene
from tests.cluster.stage import container, waiting
from tests.e2e.harness import until

KNOWN_SECONDS = 5.0
"""The promised delay between Kubernetes and all replicas."""
CRASH = {"terminated": {"exitCode": 3, "reason": "Error"}}
REASONS: dict[str, tuple[dict[str, Any], str]] = {
    "ImagePullBackOff": (container(waiting("ImagePullBackOff", "Back-off: not found")), "image registry.example/app:1"),
    "CrashLoopBackOff": (
        container(waiting("CrashLoopBackOff", "back-off"), restartCount=2, lastState=CRASH),
        "ended with exit code 3, restarted 2 times",
    ),
}


def pod_of(scene: Scene, name: str) -> str:
    """Return the pods that the controllers made and keep."""
    chosen = ("-l", f"app={name}", "-o", "json")

    def live() -> list[str]:
        pods = json.loads(scene.kubectl("get", "pods", *chosen))["items"]
        return [pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    return until("there is a pod", live)[0]


def places(scene: Scene, name: str, reason: str) -> dict[str, Callable[[], str]]:
    """Return the places to look at, each with a function that returns its reason, if any."""

    def condition() -> str:
        path = "jsonpath={.status.conditions[?(@.type=='Stalled')]}"
        stalled = json.loads(scene.kubectl("get", "ssvc", name, "-o", path))
        return f"{reason}: {stalled['message']}" if (stalled["status"], stalled["reason"]) == ("True", reason) else ""

    def events() -> str:
        ours = f"involvedObject.name={name},reason=WakeStalled"
        return scene.kubectl("get", "events", "--field-selector", ours, "-o", "jsonpath={.items[*].message}")

    def metrics() -> str:
        series = f'zenvoy_service_stalled_info{{service="{scene.namespace}/{name}",reason="{reason}"}} 1'
        with urllib.request.urlopen(f"http://{scene.replicas[scene.leader()]}:{HTTP}/metrics", timeout=5) as answer:
            return reason if series in answer.read().decode() else ""

    return {
        "condition": condition,
        "kubectl get": lambda: scene.kubectl("get", "ssvc", name, "-o", "wide"),
        "Event": events,
        "metrics": metrics,
    }


@pytest.mark.parametrize(
    ("reason", "where", "details"), [("ImagePullBackOff", "leader", False), ("CrashLoopBackOff", "follower", True)]
)
def test_reason_reaches_every_replica_at_once(
    scene: Scene, tmp_path: Path, pool: ThreadPoolExecutor, reason: str, where: str, details: bool
) -> None:
    """`details`: clients may read the whole reason, and not its class and reference alone."""
    scene.proxy_joins(scene.leader() if where == "leader" else scene.follower())
    act = Act(scene, f"reason-{reason.lower()}", tmp_path, pool)
    # Who comes when the reason comes waits for as long as it may take to be known everywhere, and no longer.
    timing = {"idle_after": "10m", "wake_timeout": "5s", "hold_timeout": f"{KNOWN_SECONDS}s"}
    scene.serve(act.name, **timing, refusal_details=str(details).lower())
    act.sleep()
    scene.kubelet.hold(act.name)
    assert act.ask().result().status == 503, "it does not start, and nothing reports the reason"
    pod = pod_of(scene, act.name)
    status, words = REASONS[reason]
    looks = places(scene, act.name, reason)
    patch = json.dumps({"status": {"containerStatuses": [status]}})

    scene.kubectl("patch", "pod", pod, "--subresource=status", "--type=merge", "-p", patch)
    known = time.monotonic()
    client = act.ask()

    def seen(place: str) -> float:
        """Return the delay until the start of the look that saw it: the duration of a look is not promised."""
        began = time.monotonic()

        def look() -> bool:
            nonlocal began
            began = time.monotonic()
            return reason in looks[place]()

        until(f"it is seen in {place}", look)
        return began - known

    after = {place: pool.submit(seen, place) for place in looks}
    assert {place: seconds.result() for place, seconds in after.items() if seconds.result() > KNOWN_SECONDS} == {}
    assert words in looks["condition"]()
    assert words in looks["Event"]()
    clients = [client]
    for _ in range(4):  # a client is always waiting, until long after the wake has timed out
        clients.append(act.ask())
        refused = clients.pop(0).result()
        assert refused.status == 503
        body, reference = refused.body.decode(), scene.view(act.name)["reference"]
        assert re.search(rf": {reason}\b.* \(reference {reference}\)$", body.strip()), body
        assert (words in body) == details, body
    scene.kubelet.let_go(act.name)
    act.lives_on()
