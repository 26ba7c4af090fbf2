"""Our finalizer on ScaledServices: whoever deletes one gets the replicas back before it is gone, and whoever waits is
served before.

Rules: only the leader writes, and only what is in force gets one. A deletion waits for the replicas, but not for ever:
a target that is gone, or that we may not scale, is told of, and left. Then it waits until the service is not needed,
for as long as its owner lets a wake take, its `wakeTimeout`: a fixed time would be too short for some that do get
ready, and no longer one would serve anybody. Counterparts: `restore.py`, which restores; `provider.py`, which keeps
it in force meanwhile; `core.departure`, which says what it is needed for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import msgspec
import structlog

from reconciler.kubernetes.client.api import MERGE_PATCH, Api
from reconciler.kubernetes.client.discovery import Discovery
from reconciler.kubernetes.client.errors import CONFLICT, NOT_FOUND, ApiError, Unreachable, is_transient
from reconciler.kubernetes.client.work_queue import DEFAULT_TIMING, WorkQueue, WorkQueueTiming
from reconciler.kubernetes.config.resolve import target_of, wake_timeout
from reconciler.kubernetes.status.restore import LANDING_SECONDS, remove_finalizer, restore
from reconciler.kubernetes.types.objects import decoder, path
from reconciler.kubernetes.types.scaled_service import API_VERSION, FINALIZER, PLURAL, ScaledService

log = structlog.get_logger(__name__)

PATIENCE_SECONDS = 60.0
"""How long a deletion waits for a fault that passes."""
LOOK_SECONDS = 0.1
"""How often is asked whether it is still needed; an errand gathers for a moment besides."""
_DECODE = decoder(ScaledService)

Told = Callable[[str, str, bool], None]
"""Of a service: what was done, for people, and whether that failed. It is told before the object is gone."""
Needed = Callable[[str], str | None]
"""Of a service: why it cannot go yet, for people; None when it can."""


@dataclass(slots=True)
class _Going:
    """One that is being deleted."""

    since: float
    """When we first tried to restore it, by the monotonic clock."""
    restored_at: float | None = None
    may_go: bool = False


class FinalizerController:
    """`items` is what an informer keeps; `leads` says whether to write; `needed` is asked of what is restored."""

    def __init__(
        self,
        api: Api,
        items: Mapping[str, ScaledService],
        leads: Callable[[], bool],
        told: Told,
        timing: WorkQueueTiming = DEFAULT_TIMING,
        patience: float = PATIENCE_SECONDS,
        landing: float = LANDING_SECONDS,
        needed: Needed = lambda service: None,
    ) -> None:
        self._api, self._items, self._leads, self._told = api, items, leads, told
        self._patience, self._landing, self._needed = patience, landing, needed
        self._discovery = Discovery(api)
        self._in_force: frozenset[str] = frozenset()
        self._going: dict[str, _Going] = {}
        """By uid."""
        self._queue = WorkQueue(self._bring_about, "a finalizer cannot be set or removed; it is tried again", timing)

    def saw(self, service: str, item: ScaledService | None) -> None:
        """The informer has a new version of the object, or it is gone."""
        if item is not None and self._is_due(service, item):
            self._queue.add(service)

    def configure(self, services: Collection[str]) -> None:
        """These are in force from now on."""
        new, self._in_force = frozenset(services) - self._in_force, frozenset(services)
        for service in new:
            self.saw(service, self._items.get(service))

    def lead(self) -> None:
        """We lead from now on: do whatever is due."""
        for service, item in self._items.items():
            self.saw(service, item)

    async def run(self) -> None:
        """Until cancelled."""
        await self._queue.run()

    async def flush(self, seconds: float) -> bool:
        """Wait until all that is due is done, at most so long; whether it is."""
        return await self._queue.drain(seconds)

    def _is_due(self, service: str, item: ScaledService) -> bool:
        has = FINALIZER in item.metadata.finalizers
        return has if item.metadata.deletion_timestamp else not has and service in self._in_force

    async def _bring_about(self, service: str) -> None:
        item = self._items.get(service)
        if item is None or not self._is_due(service, item):
            return
        if not self._leads():
            self._queue.add_after(service)
        elif item.metadata.deletion_timestamp:
            await self._leave(service, item)
        else:
            await self._add(item)

    async def _add(self, item: ScaledService) -> None:
        """With the version of the object, as the list of finalizers is written whole."""
        where = path(API_VERSION, PLURAL, item.metadata.namespace, item.metadata.name)
        try:
            await self._api.patch(where, _with_finalizer(item), MERGE_PATCH)
        except ApiError as error:
            if error.status == CONFLICT:
                newer = _DECODE(await self._api.get(where))
                if newer.metadata.deletion_timestamp is None and FINALIZER not in newer.metadata.finalizers:
                    await self._api.patch(where, _with_finalizer(newer), MERGE_PATCH)
            elif error.status != NOT_FOUND:
                raise

    async def _leave(self, service: str, item: ScaledService) -> None:
        uid = item.metadata.uid
        going = self._going.setdefault(uid, _Going(time.monotonic()))
        if going.restored_at is None:
            text, going.may_go = await self._restore(item, going.since)
            going.restored_at = time.monotonic()
            log.info("a deleted service is left", service=service, done=text, failed=going.may_go)
            self._told(service, text, going.may_go)
        if not going.may_go and (why := self._needed(service)):
            if time.monotonic() - going.restored_at < wake_timeout(item):
                self._queue.add_after(service, LOOK_SECONDS)
                return
            going.may_go = True
            text = f"it goes though not all is done after its wakeTimeout: {why}"
            log.warning("a deletion waits no longer", service=service, why=why)
            self._told(service, text, True)
        await remove_finalizer(self._api, item)
        del self._going[uid]

    async def _restore(self, item: ScaledService, since: float) -> tuple[str, bool]:
        """What was done, and whether that failed for good. Raises what may pass, for as long as our patience lasts."""
        where = path(API_VERSION, PLURAL, item.metadata.namespace, item.metadata.name)
        try:
            newest = _DECODE(await self._api.get(where))
            if newest.metadata.uid != item.metadata.uid:
                return "it is gone", False
            return await restore(self._api, self._discovery, newest, self._landing), False
        except (ApiError, Unreachable, msgspec.DecodeError) as error:
            if isinstance(error, ApiError) and error.status == NOT_FOUND:
                return "it is gone", False
            if is_transient(error) and time.monotonic() - since < self._patience:
                raise
            return f"{target_of(item)} cannot be restored: {error}; it has to be scaled by hand", True


def _with_finalizer(item: ScaledService) -> dict[str, object]:
    finalizers = [*item.metadata.finalizers, FINALIZER]
    return {"metadata": {"resourceVersion": item.metadata.resource_version, "finalizers": finalizers}}
