"""The finalizer of ScaledServices: a deletion first restores the replicas and serves the held connections.

A restoration, which an uninstallation makes too, scales only a target at zero, by the patch of a wake. It leaves the
target of a service that was never in force as it is, and can be repeated.

Only the leader writes, and only services in force get a finalizer. A deletion waits for the replicas for a limited
time: if the target is gone or may not be scaled, that is reported, and the finalizer is removed. Then the deletion
waits until the service is not needed, for at most its `wakeTimeout`, because no client waits longer for a wake.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass

import msgspec
import structlog

from reconciler.core.record import AWAKE_STATES, State
from reconciler.core.text import pluralize
from reconciler.kubernetes.capture.requests import release_command
from reconciler.kubernetes.client.api import JSON_PATCH, MERGE_PATCH, Api
from reconciler.kubernetes.client.discovery import Discovery, NoSuchKind
from reconciler.kubernetes.client.errors import (
    CONFLICT,
    FORBIDDEN,
    INVALID,
    NOT_FOUND,
    ApiError,
    Unreachable,
    ignoring,
    is_transient,
)
from reconciler.kubernetes.client.work_queue import DEFAULT_TIMING, WorkQueue, WorkQueueTiming
from reconciler.kubernetes.config.resolve import target_of, wake_timeout
from reconciler.kubernetes.status.event_messages import EventMessage, deletion_message
from reconciler.kubernetes.types.objects import Object, decoder
from reconciler.kubernetes.types.scaled_service import FINALIZER, ScaledService, item_path
from reconciler.kubernetes.workloads.scale import parse_scale, wake_patches

log = structlog.get_logger(__name__)

RETRY_TIMEOUT_SECONDS = 60.0
"""Longest time that a deletion waits for a transient error to pass."""
CHECK_AGAIN_SECONDS = 0.1
"""Delay before checking again whether the service is needed, in addition to the batch window."""
LANDING_SECONDS = 1.0
"""A patch to zero that was in flight has arrived after this time, or never will."""
_MAY_SCALE_TO_ZERO = (State.Draining, State.ScaledToZero)
_DECODE, _OBJECT = decoder(ScaledService), decoder(Object)

NeededFor = Callable[[str], str | None]
"""Returns why a service is still needed, for people; None if it is not."""
Release = Callable[[ScaledService], Awaitable[None]]
"""Gives a captured Service back to its pods, right before its ScaledService goes."""


@dataclass(slots=True)
class _Deletion:
    """Progress of one deletion."""

    since: float
    """Time of the first attempt to restore it, by the monotonic clock."""
    restored_at: float | None = None
    may_go: bool = False


class FinalizerController:
    """Adds and removes the finalizers of ScaledServices.

    `items` are the objects of an informer. `on_restored` is called with the service and the result, before the object
    is gone. `needed_for` is called for services whose replicas are restored, and `release` before their finalizer is
    removed.
    """

    def __init__(
        self,
        api: Api,
        items: Mapping[str, ScaledService],
        leads: Callable[[], bool],
        on_restored: Callable[[str, EventMessage], None],
        needed_for: NeededFor,
        release: Release,
        timing: WorkQueueTiming = DEFAULT_TIMING,
        retry_timeout: float = RETRY_TIMEOUT_SECONDS,
        landing: float = LANDING_SECONDS,
    ) -> None:
        self._api, self._items, self._leads, self._on_restored = api, items, leads, on_restored
        self._retry_timeout, self._landing = retry_timeout, landing
        self._needed_for, self._release = needed_for, release
        self._discovery = Discovery(api)
        self._in_force: frozenset[str] = frozenset()
        self._deletions: dict[str, _Deletion] = {}
        """Deletions by uid."""
        self.queue = WorkQueue(self._reconcile, "failed to set or remove a finalizer, retrying", timing)

    def saw(self, service: str, item: ScaledService | None) -> None:
        """Handle a new version of the object, or None if it is gone."""
        if item is not None and self._is_due(service, item):
            self.queue.add(service)

    def configure(self, services: Collection[str]) -> None:
        """Set the services in force."""
        new, self._in_force = frozenset(services) - self._in_force, frozenset(services)
        for service in new:
            self.saw(service, self._items.get(service))

    def lead(self) -> None:
        """Handle all objects, because this replica leads now."""
        for service, item in self._items.items():
            self.saw(service, item)

    def _is_due(self, service: str, item: ScaledService) -> bool:
        has = FINALIZER in item.metadata.finalizers
        return has if item.metadata.deletion_timestamp else not has and service in self._in_force

    async def _reconcile(self, service: str) -> None:
        item = self._items.get(service)
        if item is None or not self._is_due(service, item):
            return
        if not self._leads():
            self.queue.add_after(service)
        elif item.metadata.deletion_timestamp:
            await self._delete(service, item)
        else:
            await self._add(item)

    async def _add(self, item: ScaledService) -> None:
        """Add the finalizer. The patch names the version, because it replaces the whole list."""
        where = item_path(item.metadata)
        try:
            await self._api.patch(where, _with_finalizer(item), MERGE_PATCH)
        except ApiError as error:
            if error.status == CONFLICT:
                newer = _DECODE(await self._api.get(where))
                if newer.metadata.deletion_timestamp is None and FINALIZER not in newer.metadata.finalizers:
                    await self._api.patch(where, _with_finalizer(newer), MERGE_PATCH)
            elif error.status != NOT_FOUND:
                raise

    async def _delete(self, service: str, item: ScaledService) -> None:
        """Restore the replicas; remove the finalizer once no client needs the service, or after `wakeTimeout`."""
        uid = item.metadata.uid
        deletion = self._deletions.setdefault(uid, _Deletion(time.monotonic()))
        if deletion.restored_at is None:
            text, deletion.may_go = await self._restore(item, deletion.since)
            deletion.restored_at = time.monotonic()
            log.info("restored the replicas of a deleted service", service=service, result=text, failed=deletion.may_go)
            self._on_restored(service, deletion_message(text, deletion.may_go))
        if not deletion.may_go and (reason := self._needed_for(service)):
            if time.monotonic() - deletion.restored_at < wake_timeout(item):
                self.queue.add_after(service, CHECK_AGAIN_SECONDS)
                return
            deletion.may_go = True
            text = f"still needed after its wakeTimeout, deleting anyway: {reason}"
            log.warning("deletion timed out, continuing", service=service, reason=reason)
            self._on_restored(service, deletion_message(text, failed=True))
        await self._release_service(service, item)
        await remove_finalizer(self._api, item)
        del self._deletions[uid]

    async def _release_service(self, service: str, item: ScaledService) -> None:
        """Release its Service. A refusal does not block the deletion, and the Event says what is left to do by hand."""
        try:
            await self._release(item)
        except ApiError as error:
            if is_transient(error):
                raise
            text = f"failed to release its Service: {error.message}; {release_command(item)}"
            self._on_restored(service, deletion_message(text, failed=True))

    async def _restore(self, item: ScaledService, since: float) -> tuple[str, bool]:
        """Return a description of the result and whether it failed. Raises transient errors until the retry timeout."""
        try:
            found = await self._api.find(item_path(item.metadata))
            newest = None if found is None else _DECODE(found)
            if newest is None or newest.metadata.uid != item.metadata.uid:
                return "the object is gone", False
            return await restore(self._api, self._discovery, newest, self._landing), False
        except (ApiError, Unreachable, msgspec.DecodeError) as error:
            if is_transient(error) and time.monotonic() - since < self._retry_timeout:
                raise
            return f"failed to restore {target_of(item)}: {error}; scale it by hand", True


async def restore(api: Api, discovery: Discovery, item: ScaledService, landing: float) -> str:
    """Make sure that the target has replicas, and return a description of the result.

    `landing` is the time to wait for a patch in flight. Raises `ApiError` and `Unreachable`.
    """
    if not item.status.state:
        return "nothing to restore: never in force"
    target = target_of(item)
    if invalid := target.invalid:
        return f"nothing to restore: {invalid[1]!r} is not a valid {invalid[0]}, so it was never scaled"
    try:
        kind = await discovery.find(target.api_version, target.kind)
    except NoSuchKind as error:
        return f"nothing to restore: {error}"
    where = kind.scale_path(target.namespace, target.name)
    replicas = item.spec.replicas if isinstance(item.spec.replicas, int) else item.status.replicas
    try:
        has = parse_scale(await api.get(where), target.key).replicas
        if has and item.status.state in _MAY_SCALE_TO_ZERO:
            await asyncio.sleep(landing)
            has = parse_scale(await api.get(where), target.key).replicas
        if has:
            return f"{target} has {pluralize(has, 'replica')}"
        return f"{target} was restored to {pluralize(await _wake(api, where, target.key, max(1, replicas)), 'replica')}"
    except ApiError as error:
        if error.status == NOT_FOUND:
            return f"nothing to restore: {target} does not exist"
        if error.status == FORBIDDEN and item.status.state in AWAKE_STATES:
            return f"nothing to restore: zenvoy may not scale {target}, and did not put it to sleep"
        raise


async def remove_finalizer(api: Api, item: ScaledService | Object) -> bool:
    """Remove the finalizer, and return whether it was present. Raises `ApiError` and `Unreachable`."""
    where = item_path(item.metadata)
    with ignoring(NOT_FOUND):
        meta = _OBJECT(await api.get(where)).metadata
        if FINALIZER not in meta.finalizers or meta.uid != item.metadata.uid:
            return False
        others = [one for one in meta.finalizers if one != FINALIZER]
        change = {"resourceVersion": meta.resource_version, "finalizers": others or None}
        await api.patch(where, {"metadata": change}, MERGE_PATCH)
        return True
    return False


async def _wake(api: Api, where: str, key: str, wanted: int) -> int:
    """Wake the target, and return its replicas, which someone else may have set meanwhile."""
    for patch in wake_patches(wanted):
        try:
            return parse_scale(await api.patch(where, patch, JSON_PATCH), key).replicas
        except ApiError as error:
            if error.status != INVALID:
                raise
            refused = error
    if has := parse_scale(await api.get(where), key).replicas:
        return has
    raise refused


def _with_finalizer(item: ScaledService) -> dict[str, object]:
    finalizers = [*item.metadata.finalizers, FINALIZER]
    return {"metadata": {"resourceVersion": item.metadata.resource_version, "finalizers": finalizers}}
