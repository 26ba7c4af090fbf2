"""The finalizer of ScaledServices: a deletion first restores the replicas and serves the held connections.

Only the leader writes, and only services in effect get a finalizer. A deletion waits for the replicas for a limited
time: if the target is gone or may not be scaled, that is reported, and the finalizer is removed. Then the deletion
waits until the service is not needed, for at most its `wakeTimeout`, because no client waits longer for a wake.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass

import msgspec
import structlog

from reconciler.kubernetes.capture.requests import release_command
from reconciler.kubernetes.client.api import MERGE_PATCH, Api
from reconciler.kubernetes.client.discovery import Discovery
from reconciler.kubernetes.client.errors import CONFLICT, NOT_FOUND, ApiError, Unreachable, is_transient
from reconciler.kubernetes.client.work_queue import DEFAULT_TIMING, WorkQueue, WorkQueueTiming
from reconciler.kubernetes.config.resolve import target_of, wake_timeout
from reconciler.kubernetes.status.event_messages import EventMessage, deletion_message
from reconciler.kubernetes.status.restore import LANDING_SECONDS, remove_finalizer, restore
from reconciler.kubernetes.types.objects import decoder
from reconciler.kubernetes.types.scaled_service import FINALIZER, ScaledService, item_path

log = structlog.get_logger(__name__)

RETRY_TIMEOUT_SECONDS = 60.0
"""Longest time that a deletion waits for a transient error to pass."""
CHECK_AGAIN_SECONDS = 0.1
"""Delay before checking again whether the service is needed, in addition to the batch window."""
_DECODE = decoder(ScaledService)

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
        self._in_effect: frozenset[str] = frozenset()
        self._deletions: dict[str, _Deletion] = {}
        """Deletions by uid."""
        self.queue = WorkQueue(self._reconcile, "failed to set or remove a finalizer, retrying", timing)

    def saw(self, service: str, item: ScaledService | None) -> None:
        """Handle a new version of the object, or None if it is gone."""
        if item is not None and self._is_due(service, item):
            self.queue.add(service)

    def configure(self, services: Collection[str]) -> None:
        """Set the services in effect."""
        new, self._in_effect = frozenset(services) - self._in_effect, frozenset(services)
        for service in new:
            self.saw(service, self._items.get(service))

    def lead(self) -> None:
        """Handle all objects, because this replica leads now."""
        for service, item in self._items.items():
            self.saw(service, item)

    def _is_due(self, service: str, item: ScaledService) -> bool:
        has = FINALIZER in item.metadata.finalizers
        return has if item.metadata.deletion_timestamp else not has and service in self._in_effect

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


def _with_finalizer(item: ScaledService) -> dict[str, object]:
    finalizers = [*item.metadata.finalizers, FINALIZER]
    return {"metadata": {"resourceVersion": item.metadata.resource_version, "finalizers": finalizers}}
