"""A check for pods that serve a Service although its ScaledService is asleep.

They belong to another workload, such as a canary beside the target, or a Rollout that replaced a Deployment. They never
sleep, and they get no connection while the service sleeps: the proxy holds all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from reconciler.cluster_client.cluster import ClusterClient
from reconciler.core.record import State
from reconciler.core.text import pluralize
from reconciler.doctor.findings import CheckResult, Finding, FindingCode
from reconciler.kubernetes.config.resolve import service_of, target_of
from reconciler.kubernetes.types.builtin import EndpointSlice
from reconciler.kubernetes.types.objects import decoder, path
from reconciler.kubernetes.types.scaled_service import KIND, ScaledService

STOPPED_AFTER = timedelta(seconds=60)
"""Time after which Kubernetes has called each pod of a workload at zero terminating."""


async def check_endpoints(cluster: ClusterClient, items: list[ScaledService], now: datetime) -> CheckResult:
    """Find the Services that have pods although their ScaledService is asleep. Raises `ApiError`."""
    where = path("discovery.k8s.io/v1", "endpointslices", cluster.namespace)
    slices: list[EndpointSlice] = await cluster.list_objects(where, decoder(EndpointSlice))
    return CheckResult(
        "endpoints", pluralize(len(slices), "EndpointSlice"), tuple(find_pods_asleep(items, slices, now))
    )


def find_pods_asleep(
    items: Iterable[ScaledService], slices: Iterable[EndpointSlice], now: datetime
) -> Iterator[Finding]:
    """Yield a finding for each ScaledService that is asleep, with pods in its Service."""
    pods: dict[str, set[str]] = {}
    for one in slices:
        if not one.has_proxies:
            pods.setdefault(one.service, set()).update(_pods(one))
    for item in items:
        status, found = item.status, sorted(pods.get(service_of(item), ()))
        is_stopped = status.since is not None and now - status.since > STOPPED_AFTER
        if status.state == State.ScaledToZero.value and status.zeroed and is_stopped and found:
            message = (
                f"it is asleep, but its Service has {pluralize(len(found), 'ready pod')}, such as {found[0]}, that "
                f"{'does' if len(found) == 1 else 'do'} not belong to {target_of(item)}, or that nothing stops"
            )
            remedy = (
                "name the workload of these pods as the target, or let the selector of the Service match the pods of "
                "one workload only; if they do belong to the target, check its controller"
            )
            yield Finding(FindingCode.PODS_WHILE_ASLEEP, f"{KIND} {item.metadata.key}", message, remedy)


def _pods(one: EndpointSlice) -> Iterator[str]:
    """Yield the pods that are ready and not terminating."""
    for endpoint in one.endpoints or ():
        conditions = endpoint.conditions
        if conditions.is_ready and not conditions.terminating and endpoint.addresses:
            yield endpoint.target_ref.name if endpoint.target_ref else endpoint.addresses[0]
