"""The checks of a cluster, in order, and those of its ScaledServices.

A check that the user has no permission for becomes a note.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Iterator
from datetime import UTC, datetime, timedelta

from reconciler.cluster_client.cluster import ClusterClient
from reconciler.cluster_client.controllers import ControllerSilent, InstalledPod, fetch_live, proxy_pods
from reconciler.cluster_client.status import condition
from reconciler.core.record import State
from reconciler.core.text import pluralize
from reconciler.doctor import conflicts, connections, installation, network_policies, permissions, routes
from reconciler.doctor.connections import Overview
from reconciler.doctor.findings import CheckResult, Finding, FindingCode, Severity
from reconciler.kubernetes.client.errors import FORBIDDEN, ApiError
from reconciler.kubernetes.config.resolve import service_of, target_of
from reconciler.kubernetes.status.conditions import READY, STALLED
from reconciler.kubernetes.types.builtin import EndpointSlice
from reconciler.kubernetes.types.objects import decoder, path
from reconciler.kubernetes.types.scaled_service import CAPTURED, KIND, ScaledService

ASK_FOR_PERMISSION = "ask an administrator for the permission, or to run the check"
ALLOW_PORTFORWARD = (
    "ask an administrator for the permissions get and create on pods/portforward there, or name another address with "
    "--controller URL"
)
STOPPED_AFTER = timedelta(seconds=60)
"""Time after which Kubernetes has called each pod of a workload at zero terminating."""


async def check_cluster(cluster: ClusterClient) -> list[CheckResult]:
    """Run all checks. Raises `ClusterError`, `ApiError` and `Unreachable`."""
    now = datetime.now(UTC)
    definition = await _attempt("definition", installation.check_definition(cluster))
    if definition and definition[0].problems and not await cluster.is_installed():
        return definition  # without the definition there is nothing else to check
    pods: list[InstalledPod] = []
    results = definition + await _attempt("controller", installation.check_controller(cluster, pods))
    items = await cluster.list_services()
    results += await _attempt("permissions", permissions.check_permissions(cluster, pods, items))
    ready = [pod.name for pod in pods if pod.is_ready]
    overviews, silent = await _overviews(cluster, ready)
    if overviews:
        results += [*connections.check_connections(overviews), connections.check_certificates(overviews, now)]
        results.append(connections.check_busy_checks(overviews))
    if silent:
        results.append(CheckResult("figures", "not every controller answers", tuple(silent)))
    elif overviews and len(overviews) >= len(ready):  # a replica at --controller knows its own proxies only
        results += await _attempt("proxies", _check_proxies(cluster, overviews))
    results.append(check_services(items))
    results += await _attempt("conflicts", conflicts.check_conflicts(cluster, items))
    results += await _attempt("routes", routes.check_routes(cluster, items))
    results += await _attempt("endpoints", check_endpoints(cluster, items, now))
    return results + await _attempt("network policies", network_policies.check_network_policies(cluster, items))


async def _attempt(check: str, result: Awaitable[CheckResult]) -> list[CheckResult]:
    try:
        return [await result]
    except ApiError as error:
        if error.status != FORBIDDEN:
            raise
        message = f"not checked, because you lack a permission: {error.message}"
        finding = Finding(FindingCode.NOT_PERMITTED, check, message, ASK_FOR_PERMISSION, Severity.NOTE)
        return [CheckResult(check, "not checked", (finding,))]


async def _check_proxies(cluster: ClusterClient, overviews: dict[str, Overview]) -> CheckResult:
    return connections.check_proxy_pods(cluster.options.system, await proxy_pods(cluster), overviews)


async def _overviews(cluster: ClusterClient, ready: list[str]) -> tuple[dict[str, Overview], list[Finding]]:
    """Return the live data of each reconciler, and a finding for each that does not answer."""
    url = cluster.options.controller
    overviews: dict[str, Overview] = {}
    silent = []
    for name in [url] if url else ready:
        try:
            overviews[name] = await fetch_live(cluster, "/v1/overview", name)
        except ControllerSilent as error:
            silent.append(Finding(FindingCode.CONTROLLER_SILENT, name, str(error), ALLOW_PORTFORWARD))
    return overviews, silent


def check_services(items: list[ScaledService]) -> CheckResult:
    """Find the ScaledServices whose conditions or generation show a problem."""
    found = tuple(finding for item in items for finding in _check_service(item))
    return CheckResult("services", pluralize(len(items), KIND), found)


def _check_service(item: ScaledService) -> Iterator[Finding]:
    place, controller = f"{KIND} {item.metadata.key}", "see the findings about the controller"
    stalled, ready, captured = (condition(item, kind) for kind in (STALLED, READY, CAPTURED))
    if captured and captured.status == "False":
        message = f"its Service is not captured, so it stays awake: {captured.message}"
        remedy = f"docs/how-to/capture.md; zenvoy explain {item.metadata.key}"
        yield Finding(FindingCode.NOT_CAPTURED, place, message, remedy, reason=captured.reason)
    if stalled and stalled.status == "True":
        message, remedy = f"its wake is stalled: {stalled.message}", "docs/runbooks/ServiceStuckWaking.md"
        yield Finding(FindingCode.WAKE_STALLED, place, message, remedy, reason=stalled.reason)
    elif ready and ready.status == "False" and ready.reason not in State.__members__:
        remedy = f"zenvoy explain {item.metadata.key}"
        yield Finding(FindingCode.SERVICE_NOT_READY, place, ready.message, remedy, reason=ready.reason)
    elif ready is None:
        yield Finding(FindingCode.SERVICE_NOT_SEEN, place, "no controller has reported on it yet", controller)
    elif item.status.observed_generation < item.metadata.generation:
        message = f"its latest spec (generation {item.metadata.generation}) is not applied yet"
        yield Finding(FindingCode.SPEC_NOT_APPLIED, place, message, f"wait a moment; if it lasts, {controller}")


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
    """Yield a finding for each ScaledService that is asleep, with pods in its Service.

    They belong to another workload, such as a canary beside the target, or a Rollout that replaced a Deployment. They
    never sleep, and they get no connection while the service sleeps: the proxy holds all of them.
    """
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
