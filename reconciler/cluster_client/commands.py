"""`zenvoy wake | sleep | pause | resume` against a cluster: what is written, and how it is seen to come about.

A wake or a sleep is an annotation; the leader notes in the status that it carried it out (`observedCommand`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from reconciler.cluster_client.cluster import Cluster
from reconciler.cluster_client.errors import NoSuch, told
from reconciler.cluster_client.status import AWAKE, Changes, view, watching, why
from reconciler.kubernetes.client.api import MERGE_PATCH
from reconciler.kubernetes.types.objects import micro_time, path
from reconciler.kubernetes.types.scaled_service import (
    COMMAND_ANNOTATION,
    MANAGED_LABEL,
    PREFIX,
    ScaledService,
    ScaledServiceStatus,
)

SETTLE_SECONDS = 3.0
"""A command that was noted as carried out, and changed nothing in this time, changes nothing."""
PAUSED_ANNOTATION = f"{PREFIX}paused"
"""On a Service; it becomes `spec.paused` of the ScaledService that is made of it."""


class Verb(StrEnum):
    """What a service is told."""

    WAKE = "wake"
    SLEEP = "sleep"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended."""

    done: bool
    text: str


@dataclass(frozen=True, slots=True)
class Given:
    """A command on its way: its annotation's value, and the status that there was before it."""

    verb: Verb
    value: str
    before: ScaledServiceStatus

    def outcome(self, item: ScaledService, settled: bool) -> Outcome | None:
        """What it came to; None while that is open. `settled`: nothing has moved since it was noted."""
        status, name = item.status, item.metadata.key
        if status.observed_command != self.value:
            return None
        if self.verb is Verb.WAKE:
            return Outcome(True, f"{name} is {status.state}: {status.reason}") if status.state in AWAKE else None
        if status.state == "ScaledToZero":
            return Outcome(True, f"{name} is ScaledToZero: {status.reason}")
        moved = status.since != self.before.since
        if status.state == "Draining" or not (moved or settled):
            return None
        return Outcome(False, f"{name} stays {status.state}: {status.stalled or status.reason}")


async def give(cluster: Cluster, name: str, verb: Verb) -> Given:
    """Write the command. Raises `Trouble`."""
    before = (await cluster.one(name)).status
    value = f"{verb}@{micro_time(time.time())}"
    await cluster.patched(name, {"metadata": {"annotations": {COMMAND_ANNOTATION: value}}})
    return Given(verb, value, before)


async def carried_out(
    cluster: Cluster, name: str, verb: Verb, timeout: float, progress: Callable[[str], None]
) -> Outcome:
    """Give the command and wait until it has come about, at most `timeout` seconds. Raises `Trouble`."""
    async with watching(cluster, name) as changes:
        given = await give(cluster, name, verb)
        progress(f"{'/'.join(cluster.key(name))}: told to {verb}")
        last: list[ScaledService] = []
        try:
            async with asyncio.timeout(timeout):
                return await _awaited(given, changes, last, progress)
        except TimeoutError:
            return Outcome(False, _unfinished(given, last, timeout))


async def _awaited(
    given: Given, changes: Changes, last: list[ScaledService], progress: Callable[[str], None]
) -> Outcome:
    """`last` is kept as the latest that was seen."""
    said = ""
    while True:
        noted = bool(last) and last[0].status.observed_command == given.value
        try:
            async with asyncio.timeout(SETTLE_SECONDS if noted and last[0].status.state != "Draining" else None):
                key, item = await changes.get()
        except TimeoutError:
            if found := given.outcome(last[0], settled=True):
                return found
            key, item = last[0].metadata.key, last[0]
        if item is None:
            raise NoSuch(f"{key} was deleted meanwhile")
        last[:] = [item]
        if found := given.outcome(item, settled=False):
            return found
        if item.status.observed_command == given.value and (line := _standing(item)) != said:
            progress(said := line)


def _standing(item: ScaledService) -> str:
    return f"{item.metadata.key} is {item.status.state}: {why(view(item))}"


def _unfinished(given: Given, last: list[ScaledService], timeout: float) -> str:
    if not last or last[0].status.observed_command != given.value:
        return f"no controller carried it out within {timeout:g} s: see `zenvoy doctor`"
    return (
        f"it has not come about within {timeout:g} s: {_standing(last[0])}; see `zenvoy explain {last[0].metadata.key}`"
    )


async def pause(cluster: Cluster, name: str, paused: bool) -> str:
    """Never put it to sleep, or do so again: by its spec, or by the Service that its spec is made of; what was done."""
    item = await cluster.one(name)
    key = item.metadata.key
    said = f"{key} is paused: it is not put to sleep" if paused else f"{key} may sleep again"
    service = owner(item)
    if service is None:
        await cluster.patched(name, {"spec": {"paused": paused}})
        return said
    annotation = {"metadata": {"annotations": {PAUSED_ANNOTATION: "true" if paused else None}}}
    where = path("v1", "services", item.metadata.namespace, service)
    async with told(cluster.api.server):
        await cluster.api.patch(where, annotation, MERGE_PATCH)
    change = f"{PAUSED_ANNOTATION}={'true' if paused else ''}"
    return f"{said} (by {change} on its Service {service})" if paused else f"{said} (Service {service})"


def owner(item: ScaledService) -> str | None:
    """The Service that it is made of by label; None for one that somebody wrote."""
    if MANAGED_LABEL not in item.metadata.labels:
        return None
    return next((one.name for one in item.metadata.owner_references if one.kind == "Service"), None)
