"""All checks, one after the other; what the person who asks may not see is noted, and the rest goes on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import UTC, datetime

from reconciler.cluster_client.cluster import Cluster
from reconciler.cluster_client.controllers import AtUrl, ByForward, Figures, Silent, proxies
from reconciler.cluster_client.status import READY, STATES, condition
from reconciler.core.text import pluralize
from reconciler.doctor import conflicts, connections, installation, permissions
from reconciler.doctor.connections import World
from reconciler.doctor.findings import Examined, Finding, Level
from reconciler.doctor.installation import Installation
from reconciler.kubernetes.client.errors import ApiError
from reconciler.kubernetes.types.scaled_service import KIND, ScaledService

NOT_SEEN = "ask somebody who may, or grant it to yourself"


async def check_cluster(cluster: Cluster) -> list[Examined]:
    """Everything. Raises `Trouble` when the cluster cannot be reached at all."""
    definition = await _tried("definition", lambda: installation.check_definition(cluster))
    if definition and definition[0].problems and not await installation.served(cluster):
        return definition  # without it there is nothing else to look at
    installed = Installation()
    found = definition + await _tried("controller", lambda: installation.check_controller(cluster, installed))
    items = await cluster.all()
    found += await _tried("permissions", lambda: permissions.check_permissions(cluster, installed, items))
    worlds, silent = await _worlds(cluster, installed)
    found += (
        [*connections.check_connections(worlds), connections.check_certificates(worlds, datetime.now(UTC))]
        if worlds
        else []
    )
    if silent:
        found.append(Examined("figures", "not every controller answers", tuple(silent)))
    elif worlds and len(worlds) >= len(installed.ready):  # with --controller only one of them may have been asked
        found += await _tried("proxies", lambda: _proxies(cluster, worlds))
    found.append(check_services(items))
    return found + await _tried("conflicts", lambda: _conflicts(cluster, items))


async def _tried(check: str, look: Callable[[], Awaitable[Examined]]) -> list[Examined]:
    try:
        return [await look()]
    except ApiError as error:
        if error.status != 403:
            raise
        finding = Finding(check, f"not looked at, since you may not: {error.message}", NOT_SEEN, Level.NOTE)
        return [Examined(check, "not looked at", (finding,))]


async def _proxies(cluster: Cluster, worlds: Mapping[str, World]) -> Examined:
    return connections.check_proxy_pods(cluster.where.system, await proxies(cluster), worlds)


async def _worlds(cluster: Cluster, installed: Installation) -> tuple[dict[str, World], list[Finding]]:
    """What each reconciler says of itself; and those that say nothing."""
    url = cluster.where.controller
    asked: dict[str, Figures] = {url: AtUrl(url)} if url else {pod: ByForward(cluster, pod) for pod in installed.ready}
    worlds: dict[str, World] = {}
    silent = []
    for name, figures in asked.items():
        try:
            worlds[name] = await figures.fetch("/v1/world")
        except Silent as error:
            remedy = "get the right to use pods/portforward there, or name another way to it with --controller URL"
            silent.append(Finding(name, str(error), remedy))
    return worlds, silent


async def _conflicts(cluster: Cluster, items: list[ScaledService]) -> Examined:
    autoscalers = await conflicts.autoscalers(cluster)
    scaled = await conflicts.keda(cluster)
    targets, missed = await conflicts.targets(cluster, items)
    found = [
        *conflicts.of_autoscalers(items, autoscalers),
        *conflicts.of_keda(items, scaled),
        *conflicts.of_owners(items, targets),
        *missed,
    ]
    numbers = {"HPA": len(autoscalers), "ScaledObject": len(scaled), "target": len(targets)}
    looked = ", ".join(pluralize(number, thing) for thing, number in numbers.items())
    return Examined("conflicts", looked, tuple(found))


STALLED = "Stalled"


def check_services(items: list[ScaledService]) -> Examined:
    """Each with a condition that is neither as expected nor a state."""
    found = tuple(finding for item in items for finding in _of(item))
    return Examined("services", pluralize(len(items), KIND), found)


def _of(item: ScaledService) -> Iterator[Finding]:
    where = f"{KIND} {item.metadata.key}"
    stalled, ready = condition(item, STALLED), condition(item, READY)
    if stalled and stalled.status == "True":
        yield Finding(where, f"its wake does not get on: {stalled.message}", "docs/runbooks/ServiceStuckWaking.md")
    elif ready and ready.status == "False" and ready.reason not in STATES:
        yield Finding(where, ready.message, f"zenvoy explain {item.metadata.key}")
    elif ready is None:
        yield Finding(where, "no controller has seen it yet", "see the findings about the controller")
    elif item.status.observed_generation < item.metadata.generation:
        what = f"its newest spec (generation {item.metadata.generation}) is not in force yet"
        yield Finding(where, what, "wait a moment; see the findings about the controller if it stays so")
