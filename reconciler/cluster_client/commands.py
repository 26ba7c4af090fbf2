"""`zenvoy wake | sleep | pause | resume` against a cluster: the write, and the wait for its result.

A wake or a sleep is an annotation; the leader records in the status (`observedCommand`) that it has carried it out.
The functions raise `ClusterError`, `ApiError` and `Unreachable`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from reconciler.cluster_client.cluster import ClusterClient, NoSuchService
from reconciler.cluster_client.status import Changes, shown_reason, view, watching
from reconciler.core.record import AWAKE_STATES
from reconciler.core.text import paused_effect
from reconciler.kubernetes.client.api import MERGE_PATCH
from reconciler.kubernetes.types.objects import micro_time, path
from reconciler.kubernetes.types.scaled_service import (
    COMMAND_ANNOTATION,
    MANAGED_LABEL,
    PREFIX,
    ScaledService,
    ScaledServiceStatus,
)
from reconciler.ports.operations import Command

SETTLE_SECONDS = 3.0
"""A command that was carried out, and has changed nothing after this time, will change nothing."""
PAUSED_ANNOTATION = f"{PREFIX}paused"
"""On a Service; it sets `spec.paused` of the ScaledService that is derived from it."""


@dataclass(frozen=True, slots=True)
class CommandResult:
    """The result of a command, with a message for the user."""

    succeeded: bool
    message: str


@dataclass(slots=True)
class PendingCommand:
    """A command that was written: the value of its annotation, the status before it, and the object since."""

    verb: Command
    value: str
    before: ScaledServiceStatus
    latest: ScaledService | None = None

    @property
    def carried_out(self) -> ScaledService | None:
        """The object, once the leader has carried out the command."""
        return self.latest if self.latest and self.latest.status.observed_command == self.value else None

    def result(self, settled: bool) -> CommandResult | None:
        """Return the result; None while it is open. `settled`: nothing has changed since it was carried out."""
        if (item := self.carried_out) is None:
            return None
        status, name = item.status, item.metadata.key
        if status.state in (AWAKE_STATES if self.verb is Command.WAKE else ("ScaledToZero",)):
            return CommandResult(True, f"{name} is {status.state}: {status.reason}")
        moved = status.since != self.before.since
        if self.verb is Command.WAKE or status.state == "Draining" or not (moved or settled):
            return None
        return CommandResult(False, f"{name} stays {status.state}: {status.stalled or status.reason}")


async def write_command(cluster: ClusterClient, name: str, verb: Command) -> PendingCommand:
    """Write a command."""
    before = (await cluster.get(name)).status
    value = f"{verb}@{micro_time(time.time())}"
    await cluster.patch(name, {"metadata": {"annotations": {COMMAND_ANNOTATION: value}}})
    return PendingCommand(verb, value, before)


async def run_command(
    cluster: ClusterClient, name: str, verb: Command, timeout: float, progress: Callable[[str], None]
) -> CommandResult:
    """Write a command and wait for its result, at most `timeout` seconds."""
    async with watching(cluster, name) as changes:
        pending = await write_command(cluster, name, verb)
        progress(f"{'/'.join(cluster.key(name))}: {verb} requested")
        try:
            async with asyncio.timeout(timeout):
                return await _await_result(pending, changes, progress)
        except TimeoutError:
            return CommandResult(False, _timeout_message(pending, timeout))


async def _await_result(pending: PendingCommand, changes: Changes, progress: Callable[[str], None]) -> CommandResult:
    reported = ""
    while True:
        item = pending.carried_out
        settles = item is not None and item.status.state != "Draining"
        try:
            async with asyncio.timeout(SETTLE_SECONDS if settles else None):
                pending.latest = await _next_change(changes)
            found = pending.result(settled=False)
        except TimeoutError:
            found = pending.result(settled=True)
        if found:
            return found
        if (item := pending.carried_out) and (line := _state_line(item)) != reported:
            progress(reported := line)


async def _next_change(changes: Changes) -> ScaledService:
    """Return the object after its next change. Raises `NoSuchService`."""
    key, item = await changes.get()
    if item is None:
        raise NoSuchService(f"ScaledService {key} was deleted while the command waited; create it again")
    return item


async def wait_for_states(
    cluster: ClusterClient, names: Sequence[str], states: Collection[str], timeout: float
) -> CommandResult:
    """Wait until each service is in one of the states, at most `timeout` seconds."""
    latest: dict[str, str] = {}
    try:
        async with asyncio.timeout(timeout):
            await asyncio.gather(*(_await_state(cluster, name, states, latest) for name in dict.fromkeys(names)))
    except TimeoutError:
        return CommandResult(False, f"not within {timeout:g} s: {'; '.join(latest.values())}")
    return CommandResult(True, "; ".join(latest.values()))


async def _await_state(cluster: ClusterClient, name: str, states: Collection[str], latest: dict[str, str]) -> None:
    """Wait until a service is in one of the states; `latest` receives its state."""
    async with watching(cluster, name) as changes:
        while True:
            item = await _next_change(changes)
            latest[name] = _state_line(item)
            if item.status.state in states:
                return


def _state_line(item: ScaledService) -> str:
    return f"{item.metadata.key} is {item.status.state}: {shown_reason(view(item))}"


def _timeout_message(pending: PendingCommand, timeout: float) -> str:
    if (item := pending.carried_out) is None:
        return f"no controller carried out the command within {timeout:g} s; run `zenvoy doctor`"
    return f"not finished within {timeout:g} s: {_state_line(item)}; run `zenvoy explain {item.metadata.key}`"


async def set_paused(cluster: ClusterClient, name: str, paused: bool) -> str:
    """Pause or resume a service, and return a message for the user.

    This changes the ScaledService, or the Service that it is derived from.
    """
    item = await cluster.get(name)
    key = item.metadata.key
    message = f"{key} is paused and {paused_effect(item.status.state)}" if paused else f"{key} is resumed and may sleep"
    owners = item.metadata.owner_references if MANAGED_LABEL in item.metadata.labels else ()
    service = next((one.name for one in owners if one.kind == "Service"), None)
    if service is None:
        await cluster.patch(name, {"spec": {"paused": paused}})
        return message
    annotation = {"metadata": {"annotations": {PAUSED_ANNOTATION: "true" if paused else None}}}
    where = path("v1", "services", item.metadata.namespace, service)
    await cluster.api.patch(where, annotation, MERGE_PATCH)
    change = f"set {PAUSED_ANNOTATION}=true" if paused else f"removed {PAUSED_ANNOTATION}"
    return f"{message} ({change} on its Service {service})"
