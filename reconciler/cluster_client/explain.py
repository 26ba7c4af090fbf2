"""`zenvoy explain` against a cluster: the controller's evidence, beside what the object and its Events say."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from reconciler.cluster_client.cluster import Cluster
from reconciler.cluster_client.controllers import ByForward, Silent, controllers, figures, lease
from reconciler.cluster_client.status import Say, merged, moment, view
from reconciler.kubernetes.client.errors import ApiError, Unreachable
from reconciler.kubernetes.status.event_messages import TRANSITION_REASONS
from reconciler.kubernetes.types.builtin import EventObject
from reconciler.kubernetes.types.objects import decoder, name_selector, path
from reconciler.kubernetes.types.scaled_service import KIND, ScaledService

LAST = 10
_EVENT = decoder(EventObject)


async def explain_service(cluster: Cluster, name: str, say: Say) -> dict[str, Any]:
    """Everything that is known of one service. Raises `Trouble`."""
    item = await cluster.one(name)
    seen = view(item)
    answer: dict[str, Any] = {"service": seen, "leader": await _leader(cluster)}
    try:
        live = await figures(cluster).fetch(f"/v1/services/{item.metadata.key}/explain")
    except Silent as silent:
        say(f"from the object and its Events only: {silent}")
        return {**answer, "transitions": await _events(cluster, item, say)}
    answer |= {**live, "service": merged(seen, live["service"])}
    if not cluster.where.controller:
        await _add_others(cluster, item.metadata.key, answer)
    known = answer["transitions"]
    if len(known) < LAST:  # the controller has not led, or followed, for long
        since = datetime.fromisoformat(known[-1]["at"]) if known else None
        answer["transitions"] = (known + await _events(cluster, item, say, before=since))[:LAST]
    return answer


async def _add_others(cluster: Cluster, name: str, answer: dict[str, Any]) -> None:
    """Envoys and holders that are connected to other replicas; what one of those does not tell is left out."""
    leads = (answer["leader"] or {}).get("pod")
    try:
        pods = await controllers(cluster)
    except (ApiError, Unreachable):
        return  # whoever may not see pods still gets what the leader knows
    for pod in [pod.metadata["name"] for pod in pods if pod.is_ready]:
        if pod == leads:
            continue
        try:
            other = await ByForward(cluster, pod).fetch(f"/v1/services/{name}/explain")
        except Silent:
            continue
        answer["envoys"]["each"] += other["envoys"]["each"]
        answer["holders"] += other["holders"]


async def _leader(cluster: Cluster) -> dict[str, Any] | None:
    try:
        found = await lease(cluster)
    except (ApiError, Unreachable, msgspec.DecodeError):
        return None  # whoever may not read the Lease may still ask what a service does
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
    cluster: Cluster, item: ScaledService, say: Say, before: datetime | None = None
) -> list[dict[str, Any]]:
    """The last ten transitions that Events tell of, the latest first; Kubernetes keeps them for an hour."""
    meta = item.metadata
    query = {"fieldSelector": f"involvedObject.kind={KIND},{name_selector('involvedObject.name', meta.name)}"}
    try:
        found: list[EventObject] = await cluster.listed(path("v1", "events", meta.namespace), _EVENT, query)
    except (ApiError, Unreachable) as error:
        say(f"without Events: {error}")
        return []
    dated = [(at, event) for event in found if event.reason in TRANSITION_REASONS and (at := _at(event, before))]
    latest = sorted(dated, key=lambda one: one[0], reverse=True)[:LAST]
    return [
        {"at": moment(at), "from": None, "event": event.reason, "to": None, "reason": _why(event)}
        for at, event in latest
    ]


def _at(event: EventObject, before: datetime | None) -> datetime | None:
    """When it happened last before that. A repeated Event says of its first time and its last."""
    return next((at for at in (event.last_seen, event.first_seen) if at and (before is None or at < before)), None)


def _why(event: EventObject) -> str:
    return event.message + (f" ({event.times} times)" if event.times > 1 else "")
