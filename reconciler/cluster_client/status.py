"""`zenvoy status` against a cluster: ScaledServices now, or as they change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from reconciler.cluster_client.live import Figures, Silent, figures
from reconciler.cluster_client.reach import Cluster
from reconciler.cluster_client.views import merged, view
from reconciler.kubernetes.informer import Informer
from reconciler.kubernetes.objects import decoder, path, selected
from reconciler.kubernetes.resources import API_VERSION, PLURAL, ScaledService

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
        {"fieldSelector": selected("metadata.name", own)} if own else None,
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
