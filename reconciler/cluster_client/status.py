"""`zenvoy status` against a cluster: ScaledServices now, or as they change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from reconciler.cluster_client.cluster import Cluster
from reconciler.cluster_client.controllers import Figures, Silent, figures
from reconciler.kubernetes.client.informer import Informer
from reconciler.kubernetes.types.objects import Condition, decoder, name_selector, path
from reconciler.kubernetes.types.scaled_service import API_VERSION, PLURAL, ScaledService

Say = Callable[[str], None]
"""Tells a person something beside the answer."""
Changes = asyncio.Queue[tuple[str, ScaledService | None]]


async def look(cluster: Cluster, name: str | None, live: bool, say: Say) -> dict[str, Any]:
    """One service, or all with what is connected; `live`: with figures that only the controller knows."""
    if name is not None:
        seen = view(await cluster.one(name))
        return await with_figures(figures(cluster), seen, say) if live else seen
    found = [view(item) for item in await cluster.all()]
    return await _all(figures(cluster), found, say) if live else {"services": found}


async def with_figures(live: Figures, seen: dict[str, Any], say: Say) -> dict[str, Any]:
    """One service with its live figures, or as it was, saying why."""
    try:
        return merged(seen, await live.fetch(f"/v1/services/{seen['name']}"))
    except Silent as silent:
        say(f"without live figures: {silent}")
        return seen


@asynccontextmanager
async def watching(cluster: Cluster, name: str | None) -> AsyncIterator[Changes]:
    """Each ScaledService as it is, then again whenever it changes; None: it is no more.

    A cut watch is taken up again, however long that takes; the first look is not: it raises `Trouble`.
    """
    await (cluster.all() if name is None else cluster.one(name))
    namespace, own = (cluster.namespace, None) if name is None else cluster.key(name)
    changes: Changes = asyncio.Queue()
    informer = Informer(
        cluster.api,
        path(API_VERSION, PLURAL, namespace),
        decoder(ScaledService),
        lambda key, item: changes.put_nowait((key, item)),
        {"fieldSelector": name_selector("metadata.name", own)} if own else None,
    )
    running = asyncio.create_task(informer.run())
    try:
        yield changes
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _all(live: Figures, found: list[dict[str, Any]], say: Say) -> dict[str, Any]:
    try:
        answer = await live.fetch("/v1/services")
    except Silent as silent:
        say(f"without live figures: {silent}")
        return {"services": found, "envoys": None, "holders": None}
    known = {service["name"]: service for service in answer["services"]}
    services = [merged(seen, known.get(seen["name"])) for seen in found]
    return {"services": services, "envoys": answer["envoys"], "holders": answer["holders"]}


UNKNOWN = "Unknown"
READY = "Ready"
AWAKE = ("Active", "Idle")
STATES = ("ScaledToZero", "Waking", *AWAKE, "Draining")


def view(item: ScaledService) -> dict[str, Any]:
    """What the object says. Live figures are None: they are the controller's to tell."""
    meta, status = item.metadata, item.status
    ready = condition(item, READY)
    return {
        "name": meta.key,
        "namespace": meta.namespace,
        "state": status.state or UNKNOWN,
        "since": moment(status.since),
        "reason": status.reason or (ready.message if ready else "no controller has seen it yet"),
        "stalled": status.stalled,
        "paused": item.spec.paused,
        "target": target(item),
        "ready": ready.status if ready else UNKNOWN,
        "replicas": status.replicas,
        "held": None,
        "relayed": None,
        "requests": None,
        "deadline": None,
        "lastWake": None,
        "holdAddress": status.hold_address or None,
        "conditions": [_said(one) for one in item.status.conditions],
        "observed": status.observed_generation == meta.generation,
        "live": False,
    }


def merged(seen: Mapping[str, Any], live: Mapping[str, Any] | None) -> dict[str, Any]:
    """With the live figures, which are newer, when there are any."""
    return {**seen, **live, "live": True} if live else dict(seen)


def target(item: ScaledService) -> str:
    """What is scaled, as `Kind/name`."""
    ref = item.spec.scale_target_ref
    return f"{ref.kind or 'Deployment'}/{ref.name or item.spec.service or item.metadata.name}"


def condition(item: ScaledService, kind: str) -> Condition | None:
    return next((one for one in item.status.conditions if one.type == kind), None)


def why(seen: Mapping[str, Any]) -> str:
    """The reason to show: what is wrong, before why the state was entered."""
    ready = next((one for one in seen["conditions"] if one["type"] == READY), None)
    if seen["stalled"]:
        return str(seen["stalled"])
    if ready and ready["status"] == "False" and ready["reason"] not in STATES:
        return str(ready["message"])
    return str(seen["reason"])


def moment(at: datetime | None) -> str | None:
    """As ISO 8601 with milliseconds, in UTC."""
    return None if at is None else at.astimezone(UTC).isoformat(timespec="milliseconds")


def _said(one: Condition) -> dict[str, Any]:
    return {
        "type": one.type,
        "status": one.status,
        "reason": one.reason,
        "message": one.message,
        "since": moment(one.last_transition_time),
    }
