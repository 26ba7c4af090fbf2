"""Writer of records, conditions, and pauses to ScaledServices; implements `reconciler.ports.store.Store`.

Setting a value only queues a write, so that no wake waits for it; several changes are written together. Only the leader
writes. Leadership is checked right before a write is sent. Each write names the version of the object, so that the API
server rejects a delayed write of a former leader.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from reconciler.core.reasons import Diagnosis, Problem
from reconciler.core.record import Record
from reconciler.kubernetes.client.api import MERGE_PATCH, Api
from reconciler.kubernetes.client.errors import CONFLICT, NOT_FOUND, ApiError, ignoring
from reconciler.kubernetes.client.work_queue import DEFAULT_TIMING, WorkQueue, WorkQueueTiming
from reconciler.kubernetes.config.capture import CaptureStatus
from reconciler.kubernetes.config.resolve import target_of
from reconciler.kubernetes.status.conditions import StatusInputs, compute_status, record_of, status_patch
from reconciler.kubernetes.types.objects import decoder
from reconciler.kubernetes.types.scaled_service import ScaledService, item_path

_DECODE = decoder(ScaledService)


class StatusWriter:
    """Writes the status of ScaledServices.

    `items` are the objects of an informer, which must be synced before `records` is called. Indexes of hold addresses
    come from `next_index`, because they belong to the leader and not to a service.
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
        self._api, self._items, self._leads, self.next_index, self._now = api, items, leads, next_index, now
        self._inputs: dict[str, StatusInputs] = {}
        self._pauses: dict[str, bool] = {}
        self._answered: dict[str, ScaledService] = {}
        """Objects from answers of the API server, until the informer has the same version."""
        self._leading = False
        self.queue = WorkQueue(self._write, "failed to write status, retrying", timing)

    # The port

    def records(self) -> dict[str, Record]:
        """Return the records in all statuses."""
        restored = {name: one for name, item in self._items.items() if (one := record_of(item.status))}
        self._inputs |= {name: replace(self._inputs_of(name), record=one) for name, one in restored.items()}
        return restored

    def save(self, service: str, record: Record) -> None:
        """Set the record of a service."""
        self._set(service, replace(self._inputs_of(service), record=record, current=True))

    def forget(self, service: str) -> None:
        """Write no status of a service any more. Its object is left as it is."""
        self._inputs.pop(service, None)
        self._pauses.pop(service, None)

    def paused(self) -> frozenset[str]:
        """Return nothing, because a pause is part of the spec."""
        return frozenset()

    def pause(self, service: str, paused: bool) -> None:
        """Change the spec. This needs no leadership, because a person requested it."""
        self._pauses[service] = paused
        self.queue.add(service)

    # Other inputs of the status

    def set_problems(self, service: str, problems: Sequence[Problem]) -> None:
        """Set the problems. Those of annotations may exist before the object that is created from them."""
        before = self._inputs_of(service)
        if not problems and service not in self._items and before.record is None:
            self.forget(service)
            return
        current = before.current or bool(problems)
        self._set(service, replace(before, problems=tuple(problems), current=current))

    def set_diagnosis(self, service: str, diagnosis: Diagnosis | None) -> None:
        """Set the diagnosis that the backend reported."""
        self._set(service, replace(self._inputs_of(service), diagnosis=diagnosis, current=True))

    def set_command(self, service: str, command: str) -> None:
        """Set the last executed command, as in the annotation."""
        self._set(service, replace(self._inputs_of(service), command=command, current=True))

    def set_capture(self, service: str, capture: CaptureStatus) -> None:
        """Set the capture of its Service."""
        self._set(service, replace(self._inputs_of(service), capture=capture, current=True))

    def saw(self, service: str, item: ScaledService | None) -> None:
        """Handle a new version of the object, or None if it is gone: someone else may have changed its status."""
        if item is None:
            self._answered.pop(service, None)
            if not self._leading or self._inputs_of(service).record is None:
                self.forget(service)  # the engine calls `forget` for services with a record
        elif service in self._inputs:
            self.queue.add(service)

    # Writes

    def lead(self) -> None:
        """Write every status that differs, because this replica leads now."""
        self._leading = True
        for service in self._inputs:
            self.queue.add(service)

    def follow(self) -> None:
        """Stop writing, because another replica leads now."""
        self._leading = False

    def _inputs_of(self, service: str) -> StatusInputs:
        return self._inputs.get(service, StatusInputs())

    def _set(self, service: str, inputs: StatusInputs) -> None:
        known = service in self._items or service in self._inputs or bool(inputs.problems)
        if known and self._inputs.get(service) != inputs:
            self._inputs[service] = inputs
            self.queue.add(service)

    async def _write(self, service: str) -> None:
        """Make one attempt to write the newest status. An object that is gone needs none."""
        item = self._latest(service)
        if item is None:
            return
        with ignoring(NOT_FOUND):
            try:
                if (paused := self._pauses.get(service)) is not None:
                    await self._patch(service, item, {"spec": {"paused": paused}}, None)
                    if self._pauses.get(service) is paused:
                        del self._pauses[service]
                    self.queue.add(service)
                elif changed := self._change(service, item):
                    await self._patch(service, item, {"status": changed}, "status")
            except ApiError as error:
                if error.status == CONFLICT:  # someone else changed it, and the informer has not received that yet
                    self._answered[service] = _DECODE(await self._api.get(item_path(item.metadata)))
                raise

    def _change(self, service: str, item: ScaledService) -> dict[str, Any]:
        """Return the patch of the status; empty unless this replica leads."""
        inputs = self._inputs.get(service)
        if inputs is None or not inputs.current or not self._leading:
            return {}
        target = target_of(item)
        # The problems are those of the informer's version by now, because writes are delayed by the batch window.
        generation = self._items.get(service, item).metadata.generation
        after = compute_status(inputs, item.status, self._now(), f"{target.kind}/{target.name}", generation)
        changed = status_patch(item.status, after)
        if changed and not self._leads():
            self.queue.add_after(service)  # this replica may lead again without another leader in between
            return {}
        return changed

    async def _patch(self, service: str, item: ScaledService, body: dict[str, Any], subresource: str | None) -> None:
        about = {"metadata": {"resourceVersion": item.metadata.resource_version, "uid": item.metadata.uid}}
        where = item_path(item.metadata, subresource)
        self._answered[service] = _DECODE(await self._api.patch(where, body | about, MERGE_PATCH))

    def _latest(self, service: str) -> ScaledService | None:
        """Return the newest known version of the object, or None if it is gone."""
        listed, answered = self._items.get(service), self._answered.get(service)
        if listed is None or answered is None:
            return listed
        if _version(listed) >= _version(answered):
            del self._answered[service]
            return listed
        return answered


def _version(item: ScaledService) -> int:
    """Return the version as a number. A version that is not a number counts as the newest."""
    version = item.metadata.resource_version
    return int(version) if version.isdigit() else 1 << 64
