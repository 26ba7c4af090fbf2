"""`zenvoy status` against a cluster: ScaledServices in the fields of `-o json`, their selection, and their totals.

Counterpart: `reconciler.engine.view`, which has the live figures too.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from reconciler.cluster_client.cluster import ClusterClient
from reconciler.cluster_client.controllers import ControllerSilent, fetch_live
from reconciler.core.record import State
from reconciler.core.text import pluralize
from reconciler.kubernetes.client.informer import Informer
from reconciler.kubernetes.status.conditions import READY
from reconciler.kubernetes.types.objects import Condition, decoder, name_selector, path
from reconciler.kubernetes.types.scaled_service import API_VERSION, PLURAL, ScaledService

UNKNOWN = "Unknown"
TOTALS_FROM = 20
"""Number of services from which the totals are shown: fewer can be counted at a glance."""
Say = Callable[[str], None]
"""Shows the user a message in addition to the answer."""
Changes = asyncio.Queue[tuple[str, ScaledService | None]]


async def service_status(cluster: ClusterClient, name: str | None, live: bool, say: Say) -> dict[str, Any]:
    """Return one service, or all with the connected Envoys and holders; `live`: with the controller's figures.

    Raises `ClusterError`, `ApiError` and `Unreachable`.
    """
    if name is not None:
        shown = view(await cluster.get(name))
        return await with_figures(cluster, shown, say) if live else shown
    found = [view(item) for item in await cluster.list_services()]
    return await _with_all_figures(cluster, found, say) if live else {"services": found}


async def with_figures(cluster: ClusterClient, shown: dict[str, Any], say: Say) -> dict[str, Any]:
    """Return a service with its live figures; without them, report why."""
    try:
        return merged(shown, await fetch_live(cluster, f"/v1/services/{shown['name']}"))
    except ControllerSilent as silent:
        say(f"without live figures: {silent}")
        return shown


@asynccontextmanager
async def watching(cluster: ClusterClient, name: str | None) -> AsyncIterator[Changes]:
    """Provide each ScaledService now and whenever it changes; None: it was deleted.

    The first read raises `ClusterError`, `ApiError` and `Unreachable`. A watch that breaks later is resumed, however
    long that takes.
    """
    await (cluster.list_services() if name is None else cluster.get(name))
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


async def _with_all_figures(cluster: ClusterClient, found: list[dict[str, Any]], say: Say) -> dict[str, Any]:
    try:
        answer = await fetch_live(cluster, "/v1/services")
    except ControllerSilent as silent:
        say(f"without live figures: {silent}")
        return {"services": found, "envoys": None, "holders": None}
    known = {service["name"]: service for service in answer["services"]}
    services = [merged(shown, known.get(shown["name"])) for shown in found]
    return {"services": services, "envoys": answer["envoys"], "holders": answer["holders"]}


def view(item: ScaledService) -> dict[str, Any]:
    """Return the fields of `zenvoy status -o json` that the object has; the others are None."""
    meta, status, ref = item.metadata, item.status, item.spec.scale_target_ref
    ready = condition(item, READY)
    return {
        "name": meta.key,
        "namespace": meta.namespace,
        "state": status.state or UNKNOWN,
        "since": moment(status.since),
        "reason": status.reason or (ready.message if ready else "no controller has reported on it yet"),
        "stalled": status.stalled,
        "paused": item.spec.paused,
        "target": f"{ref.kind or 'Deployment'}/{ref.name or item.spec.service or meta.name}",
        "ready": ready.status if ready else UNKNOWN,
        "replicas": status.replicas,
        **dict.fromkeys(("held", "relayed", "requests", "deadline", "lastWake")),
        "holdAddress": status.hold_address or None,
        "conditions": [
            {
                "type": one.type,
                "status": one.status,
                "reason": one.reason,
                "message": one.message,
                "since": moment(one.last_transition_time),
            }
            for one in status.conditions
        ],
        "observed": status.observed_generation == meta.generation,
        "live": False,
    }


def merged(shown: Mapping[str, Any], live: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a service's fields with the live figures, which are newer, if there are any."""
    return {**shown, **live, "live": True} if live else dict(shown)


def condition(item: ScaledService, kind: str) -> Condition | None:
    """Return the condition of a type, if the object has it."""
    return next((one for one in item.status.conditions if one.type == kind), None)


def shown_reason(shown: Mapping[str, Any]) -> str:
    """Return the reason to show: a problem if there is one, otherwise the reason for the state."""
    if shown["stalled"]:
        return str(shown["stalled"])
    mistake = _mistake(shown)
    return str(mistake["message"] if mistake else shown["reason"])


def has_problem(shown: Mapping[str, Any]) -> bool:
    """Return whether its wake is stalled, or `Ready` is False for another reason than its state."""
    return bool(shown["stalled"] or _mistake(shown))


def _mistake(shown: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the condition Ready if it is False for another reason than the state."""
    ready = next((one for one in shown["conditions"] if one["type"] == READY), None)
    return ready if ready and ready["status"] == "False" and ready["reason"] not in State.__members__ else None


@dataclass(frozen=True, slots=True)
class ServiceFilter:
    """The services to show; without a restriction, all."""

    states: tuple[str, ...] = ()
    problems: bool = False
    """True to show only services with a problem."""

    def apply(self, services: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Return the selected services."""
        return [
            one
            for one in services
            if (not self.states or one["state"] in self.states) and (not self.problems or has_problem(one))
        ]


def totals(services: Sequence[Mapping[str, Any]]) -> str:
    """Return the number of services in each state, and with problems, for people."""
    numbers = Counter(one["state"] for one in services)
    parts = [f"{numbers[state]} {state}" for state in (*State, *sorted(numbers.keys() - set(State))) if numbers[state]]
    problems = sum(map(has_problem, services))
    return f"{pluralize(len(services), 'service')}: {', '.join(parts)}; {problems or 'none'} with a problem"


def moment(at: datetime | None) -> str | None:
    """Return a time as ISO 8601 with milliseconds, in UTC."""
    return None if at is None else at.astimezone(UTC).isoformat(timespec="milliseconds")
