"""Findings of `zenvoy doctor` about the installation."""

from __future__ import annotations

from reconciler.cluster_client.cluster import LEASE, ClusterClient
from reconciler.cluster_client.context_options import SYSTEM_NAMESPACE, ContextOptions
from reconciler.cluster_client.controllers import InstalledPod
from reconciler.doctor.findings import FindingCode
from reconciler.doctor.installation import check_controller
from reconciler.kubernetes.types.objects import path
from tests.fakes.watched import Watched

PODS = path("v1", "pods", SYSTEM_NAMESPACE)
LEASES = path("coordination.k8s.io/v1", "leases")
READY = [{"type": "Ready", "status": "True"}]


async def test_controller_pod_that_has_ended_is_no_finding() -> None:
    """Kubernetes keeps the pods of a node that was shut down, and those that were evicted."""
    api = Watched()
    api.exists(LEASES)
    lease = {"spec": {"holderIdentity": "zenvoy-1", "leaseDurationSeconds": 15}}
    api.put(path("coordination.k8s.io/v1", "leases", SYSTEM_NAMESPACE, LEASE), lease)
    for name, status in (
        ("zenvoy-0", {"phase": "Failed", "reason": "Terminated"}),
        ("zenvoy-1", {"phase": "Running", "conditions": READY}),
    ):
        api.say(PODS, SYSTEM_NAMESPACE, name, {"spec": {"containers": []}, "status": status})
    pods: list[InstalledPod] = []

    result = await check_controller(ClusterClient(api, ContextOptions()), pods)

    assert [one for one in result.findings if one.code is FindingCode.CONTROLLER_NOT_READY] == []
    assert [pod.name for pod in pods if pod.is_ready] == ["zenvoy-1"]
    assert result.summary == "1 of 1 pod ready, zenvoy-1 leads"
