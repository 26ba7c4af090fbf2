"""Records in the status of ScaledServices. Counterparts: `reconciler.ports.store`; `conditions.py`, which words them.

Rules: saying a thing only notes it, so that no wake waits for a write; what comes at once is written once, the newest
only. Only the leader writes. It is asked right before a write is sent, and a write names the version of the object that
it is about, so that one which was long on its way, from a leader that was, is refused by the API server.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from reconciler.core.reasons import Problem
from reconciler.core.record import Record
from reconciler.kubernetes.client.api import MERGE_PATCH, Api
from reconciler.kubernetes.client.errors import CONFLICT, NOT_FOUND, ApiError
from reconciler.kubernetes.client.work_queue import DEFAULT_TIMING, WorkQueue, WorkQueueTiming
from reconciler.kubernetes.config.resolve import target_of
from reconciler.kubernetes.status.conditions import NO_INPUTS, StatusInputs, compute_status, record_of, status_patch
from reconciler.kubernetes.types.objects import decoder, path
from reconciler.kubernetes.types.scaled_service import API_VERSION, PLURAL, ScaledService

_DECODE = decoder(ScaledService)


class StatusWriter:
    """`items` is what an informer keeps, and must be complete before `records`; `leads` says whether to write.

    Numbers for hold addresses come from `next_index`: they belong to the leader, not to a service.
    """

    def __init__(
        self,
        api: Api,
        items: Mapping[str, ScaledService],
        leads: Callable[[], bool],
        next_index: Callable[[], int],
        now: Callable[[], float] = time.time,
        timing: WorkQueueTiming = DEFAULT_TIMING,
    ) -> None:
        self._api, self._items, self._leads, self._next_index, self._now = api, items, leads, next_index, now
        self._standings: dict[str, StatusInputs] = {}
        self._pauses: dict[str, bool] = {}
        self._answered: dict[str, ScaledService] = {}
        """Objects as the API server gave them back, until the informer has them."""
        self._leading = False
        self._queue = WorkQueue(self._write, "a status cannot be written; it is tried again", timing)

    # The port

    def records(self) -> dict[str, Record]:
        found = {name: record_of(item.status) for name, item in self._items.items()}
        restored = {name: one for name, one in found.items() if one}
        self._standings |= {name: replace(self._standing(name), record=one) for name, one in restored.items()}
        return restored

    def save(self, service: str, record: Record) -> None:
        self._say(service, replace(self._standing(service), record=record, heard=True))

    def forget(self, service: str) -> None:
        """The object is left as it is: either it is gone, or what it says of the past is still true."""
        self._standings.pop(service, None)
        self._pauses.pop(service, None)

    def paused(self) -> frozenset[str]:
        """None: whether a service is paused is part of its spec."""
        return frozenset()

    def pause(self, service: str, paused: bool) -> None:
        """Change the spec, whoever leads: a person asked for it."""
        self._pauses[service] = paused
        self._queue.add(service)

    def next_index(self) -> int:
        return self._next_index()

    # What else a status tells

    def set_problems(self, service: str, problems: Sequence[Problem], generation: int = 0) -> None:
        """All that is wrong with what was asked, in that generation of the object or the one that the informer has.

        Problems of annotations may be found before the object that is made of them exists: then it has them at once.
        """
        before = self._standing(service)
        if not problems and service not in self._items and before.record is None:
            self.forget(service)
            return
        heard = before.heard or bool(problems)
        self._say(service, replace(before, problems=tuple(problems), generation=generation, heard=heard))

    def set_seen(self, service: str, trouble: str | None) -> None:
        """The backend reported on it, with that trouble."""
        self._say(service, replace(self._standing(service), trouble=trouble, heard=True))

    def set_command(self, service: str, command: str) -> None:
        """That command, as the annotation says it, was carried out."""
        self._say(service, replace(self._standing(service), command=command, heard=True))

    def saw(self, service: str, item: ScaledService | None) -> None:
        """The informer has a new version of the object: somebody may have written into its status."""
        if item is None:
            self._answered.pop(service, None)
            if not self._leading or self._standing(service).record is None:
                self.forget(service)  # what the engine has a record of, it forgets itself
        elif service in self._standings:
            self._queue.add(service)

    # Writing

    def lead(self) -> None:
        """We lead from now on, and the engine has saved what it knows: write whatever differs."""
        self._leading = True
        for service in self._standings:
            self._queue.add(service)

    def follow(self) -> None:
        """Another one leads from now on: what is not written yet is its business."""
        self._leading = False

    async def run(self) -> None:
        """Write what is said, until cancelled."""
        await self._queue.run()

    async def flush(self, seconds: float) -> bool:
        """Wait until all that was said is written, at most so long; whether it is. `run` has to go on meanwhile."""
        return await self._queue.drain(seconds)

    def _standing(self, service: str) -> StatusInputs:
        return self._standings.get(service, NO_INPUTS)

    def _say(self, service: str, standing: StatusInputs) -> None:
        known = service in self._items or service in self._standings or bool(standing.problems)
        if known and self._standings.get(service) != standing:
            self._standings[service] = standing
            self._queue.add(service)

    async def _write(self, service: str) -> None:
        """One attempt, at what is the newest by then. What is gone has nothing to be told."""
        item = self._latest(service)
        if item is None:
            return
        try:
            await self._write_to(item, service)
        except ApiError as error:
            if error.status != NOT_FOUND:
                raise

    async def _write_to(self, item: ScaledService, service: str) -> None:
        try:
            if service in self._pauses:
                await self._write_pause(item, service)
            elif changed := self._change(service, item):
                await self._patch(service, item, {"status": changed}, "status")
        except ApiError as error:
            if error.status == CONFLICT:  # somebody else changed it, and we have yet to hear of it
                self._answered[service] = _DECODE(await self._api.get(_path(item)))
            raise

    async def _write_pause(self, item: ScaledService, service: str) -> None:
        paused = self._pauses[service]
        await self._patch(service, item, {"spec": {"paused": paused}}, None)
        if self._pauses.get(service) is paused:
            del self._pauses[service]
        self._queue.add(service)

    def _change(self, service: str, item: ScaledService) -> dict[str, Any]:
        """What is to be written now; nothing, unless we lead."""
        standing = self._standings.get(service)
        if standing is None or not standing.heard or not self._leading:
            return {}
        target, listed = target_of(item), self._items.get(service, item)
        # By now everybody has heard of what the informer has: it was told of at once, and writes are gathered first.
        standing = replace(standing, generation=max(standing.generation, listed.metadata.generation))
        changed = status_patch(
            item.status, compute_status(standing, item.status, self._now(), f"{target.kind}/{target.name}")
        )
        if changed and not self._leads():
            self._queue.add_after(service)  # the lease may be ours again, without anybody having led in between
            return {}
        return changed

    async def _patch(self, service: str, item: ScaledService, body: dict[str, Any], subresource: str | None) -> None:
        about = {"metadata": {"resourceVersion": item.metadata.resource_version, "uid": item.metadata.uid}}
        answer = await self._api.patch(_path(item, subresource), body | about, MERGE_PATCH)
        self._answered[service] = _DECODE(answer)

    def _latest(self, service: str) -> ScaledService | None:
        """The newest version of the object that we know; None: there is none."""
        listed, answered = self._items.get(service), self._answered.get(service)
        if listed is None or answered is None:
            return listed
        if _version(listed) >= _version(answered):
            del self._answered[service]
            return listed
        return answered


def _path(item: ScaledService, subresource: str | None = None) -> str:
    return path(API_VERSION, PLURAL, item.metadata.namespace, item.metadata.name, subresource)


def _version(item: ScaledService) -> int:
    """Versions are opaque by contract and numbers in fact, of etcd; what is no number is taken for the newest."""
    version = item.metadata.resource_version
    return int(version) if version.isdigit() else 1 << 64
