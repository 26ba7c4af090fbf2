"""Readiness on a node: zenvoy runs a pod's probes itself, and does not wait for those of the kubelet."""

from __future__ import annotations

from tests.cluster.release import Release, Shop, web
from tests.e2e.harness import until

PERIOD_SECONDS = 3600
"""Far longer than a connection is held, so that the kubelet's probes alone could not wake the service in time."""
READY = "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}"


def test_readiness_is_found_between_the_kubelets_probes(zenvoy: Release, shop: Shop) -> None:
    deployment, service = web("web", replicas=0, DELAY="2s")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    container["readinessProbe"]["periodSeconds"] = PERIOD_SECONDS
    shop.apply(deployment, service)
    shop.label("web", idle_after="10m")
    shop.until("web", "ScaledToZero")

    answer = zenvoy.curl(shop.host("web"))

    assert answer.status == 200, answer.body
    assert shop.kubectl("get", "pods", "-o", READY) == "False"
    shop.until("web", "Active", "Idle")
    until("its wake is reported", lambda: "Woken" in shop.events("web"))
