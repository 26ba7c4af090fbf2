"""Reasons why a pod does not start, from the real kubelet, scheduler and quota, as operators and clients see them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from tests.cluster.release import PATIENCE_SECONDS, Answer, Release, Shop, web
from tests.e2e.harness import until

WHY = {
    "mount": ("FailedMount", 'configmap "absent" not found'),
    "place": ("Unschedulable", "didn't match Pod's node affinity/selector"),
    "quota": ("QuotaExceeded", "exceeded quota: two, requested: pods=1, used: pods=2, limited: pods=2"),
}
ABSENT: Mapping[str, Any] = {
    "volumes": [{"name": "absent", "configMap": {"name": "absent"}}],
    "containers": [{"name": "web", "volumeMounts": [{"name": "absent", "mountPath": "/absent"}]}],
}
NOWHERE: Mapping[str, Any] = {"nodeSelector": {"zenvoy.dev/test": "nowhere"}}


def test_stalled_pods_clients_get_classes_and_status_reasons(zenvoy: Release, shop: Shop) -> None:
    for name in WHY:
        shop.apply(*web(name))
    for name in WHY:
        shop.until_rolled_out(name)
        shop.label(name, idle_after="2s", wake_timeout="5m", hold_timeout="30s")
    for name in WHY:
        shop.until(name, "ScaledToZero")
    until("all pods are gone", lambda: not shop.kubectl("get", "pods", "-o", "name"), PATIENCE_SECONDS)
    for name, pod in (("mount", ABSENT), ("place", NOWHERE)):
        patch = json.dumps({"spec": {"template": {"spec": pod}}})
        shop.kubectl("patch", "deployment", name, "--type=strategic", "-p", patch)

    def refusal(name: str) -> Answer:
        return zenvoy.refusal(shop.host(name), f": {WHY[name][0]} (reference ")

    with ThreadPoolExecutor() as clients:
        waiting = {name: clients.submit(refusal, name) for name in ("mount", "place")}
        until(
            "their pods are made", lambda: len(shop.kubectl("get", "pods", "-o", "name").split()) == 2, PATIENCE_SECONDS
        )
        shop.kubectl("create", "quota", "two", "--hard=pods=2")
        until("it is in force", lambda: shop.get("resourcequota", "two")["status"].get("used") == {"pods": "2"})
        waiting["quota"] = clients.submit(refusal, "quota")
        answers = {name: client.result() for name, client in waiting.items()}

    def has_event(name: str) -> bool:
        return "WakeStalled" in shop.events(name)

    for name, (word, said) in WHY.items():
        assert said not in answers[name].body
        stalled = until(f"the status of {name}", partial(_stalled, shop, name, word))
        assert said in stalled["message"]
        until(f"the Event of {name}", partial(has_event, name))


def _stalled(shop: Shop, name: str, reason: str) -> Mapping[str, Any] | None:
    """Return the condition Stalled, once it is true with this reason."""
    conditions = shop.get("ssvc", name)["status"]["conditions"]
    said = {"type": "Stalled", "status": "True", "reason": reason}
    return next((one for one in conditions if said.items() <= one.items()), None)
