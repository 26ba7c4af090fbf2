"""`zenvoy explain` against a cluster: the controller's evidence, the object, and its Events."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from reconciler.cluster_client.cluster import ClusterClient
from reconciler.cluster_client.controllers import ControllerSilent, controller_pods, fetch_live, read_lease
from reconciler.cluster_client.status import Say, merged, moment, view
from reconciler.kubernetes.client.errors import ApiError, Unreachable
from reconciler.kubernetes.status.event_messages import TRANSITION_REASONS
from reconciler.kubernetes.types.builtin import EventObject
from reconciler.kubernetes.types.objects import decoder, name_selector, path
from reconciler.kubernetes.types.scaled_service import KIND, ScaledService

TRANSITIONS = 10


async def explain_service(cluster: ClusterClient, name: str, say: Say) -> dict[str, Any]:
    """Return everything that is known of one service. Raises `ClusterError`, `ApiError` and `Unreachable`."""
    item = await cluster.get(name)
    shown = view(item)
    answer: dict[str, Any] = {"service": shown, "leader": await _leader(cluster)}
    try:
        live = await fetch_live(cluster, f"/v1/services/{item.metadata.key}/explain")
    except ControllerSilent as silent:
        say(f"showing the object and its Events only: {silent}")
        return {**answer, "transitions": await _events(cluster, item, say)}
    answer |= {**live, "service": merged(shown, live["service"])}
    if not cluster.options.controller:
        await _add_other_replicas(cluster, item.metadata.key, answer)
    known = answer["transitions"]
    if len(known) < TRANSITIONS:  # the controller became leader, or started, a short time ago
        since = datetime.fromisoformat(known[-1]["at"]) if known else None
        answer["transitions"] = (known + await _events(cluster, item, say, before=since))[:TRANSITIONS]
    return answer


async def _add_other_replicas(cluster: ClusterClient, name: str, answer: dict[str, Any]) -> None:
    """Add the Envoys and holders that are connected to other replicas, as far as those answer."""
    leader = (answer["leader"] or {}).get("pod")
    try:
        pods = await controller_pods(cluster)
    except (ApiError, Unreachable):
        return  # without the permission to list pods, the leader's part is still useful
    for pod in [pod.name for pod in pods if pod.is_ready and pod.name != leader]:
        try:
            other = await fetch_live(cluster, f"/v1/services/{name}/explain", pod)
        except ControllerSilent:
            continue
        answer["envoys"]["each"] += other["envoys"]["each"]
        answer["holders"] += other["holders"]


async def _leader(cluster: ClusterClient) -> dict[str, Any] | None:
    try:
        found = await read_lease(cluster)
    except (ApiError, Unreachable, msgspec.DecodeError):
        return None  # without the permission to read the Lease, the rest is still useful
    if found is None:
        return None
    spec = found.spec
    return {
        "pod": spec.holder_identity,
        "renewedAt": spec.renew_time,
        "leaseSeconds": spec.lease_duration_seconds,
        "changes": spec.lease_transitions,
    }


async def _events(
    cluster: ClusterClient, item: ScaledService, say: Say, before: datetime | None = None
) -> list[dict[str, Any]]:
    """Return the latest transitions that Events record, newest first; Kubernetes keeps Events for an hour."""
    meta = item.metadata
    query = {"fieldSelector": f"involvedObject.kind={KIND},{name_selector('involvedObject.name', meta.name)}"}
    try:
        found = await cluster.list_objects(path("v1", "events", meta.namespace), decoder(EventObject), query)
    except (ApiError, Unreachable) as error:
        say(f"without Events: {error}")
        return []
    dated = [(at, event) for event in found if event.reason in TRANSITION_REASONS and (at := _time(event, before))]
    latest = sorted(dated, key=lambda one: one[0], reverse=True)[:TRANSITIONS]
    return [
        {"at": moment(at), "from": None, "event": event.reason, "to": None, "reason": _message(event)}
        for at, event in latest
    ]


def _time(event: EventObject, before: datetime | None) -> datetime | None:
    """Return the last time before `before` in an Event; a repeated one contains its first and its last time."""
    return next((at for at in (event.last_seen, event.first_seen) if at and (before is None or at < before)), None)


def _message(event: EventObject) -> str:
    return event.message + (f" ({event.times} times)" if event.times > 1 else "")
