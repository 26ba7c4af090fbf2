"""A controller that creates, updates, and deletes the ScaledServices of labeled Services.

Only the leader writes. A ScaledService that was not created from the label is never changed. Fields that the
annotations do not set are kept, so `zenvoy pause` stays in force. The target of a ScaledService cannot change: the
object is deleted, which restores the replicas, and created again. While annotations have mistakes, the last valid ones
stay in force. Counterparts: `annotations.py`, which parses them, and `provider.py`, which calls `look`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from reconciler.core.reasons import Problem, Reason
from reconciler.kubernetes.client.api import MERGE_PATCH, Api
from reconciler.kubernetes.client.errors import CONFLICT, NOT_FOUND, ApiError, is_namespace_terminating, is_transient
from reconciler.kubernetes.client.work_queue import DEFAULT_TIMING, WorkQueue
from reconciler.kubernetes.config.annotations import PartialSpec, is_enabled, item_of, label_problem, parse_annotations
from reconciler.kubernetes.config.resolve import ClusterConfig, target_of
from reconciler.kubernetes.config.service_config import SERVICE
from reconciler.kubernetes.types.builtin import Service
from reconciler.kubernetes.types.objects import OwnerReference, path
from reconciler.kubernetes.types.scaled_service import (
    API_VERSION,
    ENABLED_LABEL,
    KIND,
    MANAGED_LABEL,
    PLURAL,
    PREFIX,
    ScaledService,
    item_path,
)

MADE_OF = f"{PREFIX}made-of"
"""On an owned ScaledService: the spec from the annotations, which shows the fields that they no longer set."""
UNREAD = f"{PREFIX}unread"
"""On an owned ScaledService whose Service has had mistakes from the start: it is not in force."""


def _owner_uid(item: ScaledService) -> str:
    """Return the uid of the Service that it was created from; empty if it was created in another way."""
    owners = item.metadata.owner_references if item.metadata.labels.get(MANAGED_LABEL) == "true" else ()
    return next((one.uid for one in owners if one.kind == SERVICE and one.name == item.metadata.name), "")


class ServiceController:
    """A controller; `scaled` and `services` are the objects of informers.

    It writes while `leads` returns True, and calls `on_problems` when the problems of a Service change.
    """

    def __init__(
        self,
        api: Api,
        scaled: Mapping[str, ScaledService],
        services: Mapping[str, Service],
        leads: Callable[[], bool],
        on_problems: Callable[[], None],
        cluster: ClusterConfig,
    ) -> None:
        self._api, self._scaled, self._services = api, scaled, services
        self._leads, self._on_problems, self._cluster = leads, on_problems, cluster
        failure = "failed to write the ScaledService of a labeled Service, retrying"
        self.queue = WorkQueue(self._reconcile, failure, DEFAULT_TIMING)
        self._refused: dict[str, Problem] = {}
        self._problems: dict[str, tuple[Problem, ...]] = {}

    @property
    def troubled(self) -> set[str]:
        """Services that have problems."""
        return {*self._problems, *self._refused}

    def problems(self, key: str) -> tuple[Problem, ...]:
        """Return the problems of a Service's label and annotations."""
        refused = self._refused.get(key)
        return (*self._problems.get(key, ()), *((refused,) if refused else ()))

    def look(self, key: str) -> None:
        """Process a name whose Service or ScaledService may have changed."""
        before = self._problems.pop(key, ())
        if found := self._find_problems(key):
            self._problems[key] = found
        if found != before:
            self._on_problems()
        if self.labeled_service(key) or self._owned_scaled_service(key):
            self.queue.add(key)
        elif self._refused.pop(key, None):
            self._on_problems()

    def look_at_all(self) -> None:
        """Process all objects, as the new leader, and once both informers have synced."""
        for key in self._services.keys() | self._scaled.keys():
            self.look(key)

    async def _reconcile(self, key: str) -> None:
        """Write the difference for one name."""
        if not self._leads():
            self.queue.add_after(key)
            return
        try:
            await self._write(key)
        except ApiError as error:
            if error.status in (NOT_FOUND, CONFLICT) or is_namespace_terminating(error):
                return  # the informer will report that change, which queues the name again
            if not is_transient(error):
                self._refuse(key, error)
            raise
        if self._refused.pop(key, None):
            self._on_problems()

    async def _write(self, key: str) -> None:
        item, service = self._owned_scaled_service(key), self.labeled_service(key)
        if item and item.metadata.deletion_timestamp:
            return
        if service is None or (item and _owner_uid(item) != service.metadata.uid):  # of an earlier Service
            if item:
                await self._delete(item)
            return
        if item is None and key in self._scaled:
            return
        fields, mistakes = parse_annotations(service, self._cluster)
        if item is None:
            await self._create(service, {} if mistakes else fields, unread=bool(mistakes))
        elif not mistakes and target_of(item) != target_of(item_of(service, fields)):
            await self._delete(item)
        elif not mistakes:
            await self._update(item, service, fields)

    async def _create(self, service: Service, fields: PartialSpec, unread: bool) -> None:
        meta = service.metadata
        notes = {UNREAD: "true"} if unread else {MADE_OF: _written(fields)}
        owner = OwnerReference("v1", SERVICE, meta.name, meta.uid, controller=True)
        body = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {
                "name": meta.name,
                "labels": {MANAGED_LABEL: "true"},
                "annotations": notes,
                "ownerReferences": [msgspec.to_builtins(owner)],
            },
            "spec": fields,
        }
        await self._api.call("POST", path(API_VERSION, PLURAL, meta.namespace), body)

    async def _update(self, item: ScaledService, service: Service, fields: PartialSpec) -> None:
        notes = item.metadata.annotations
        before = _read(notes.get(MADE_OF, "{}"))
        spec: dict[str, Any] = {**dict.fromkeys(before.keys() - fields.keys()), **fields}
        wanted, has = msgspec.to_builtins(item_of(service, fields).spec), msgspec.to_builtins(item.spec)
        if UNREAD not in notes and before == fields and wanted.items() <= has.items():
            return
        annotations = {MADE_OF: _written(fields), UNREAD: None}
        meta = {"resourceVersion": item.metadata.resource_version, "annotations": annotations}
        await self._api.patch(item_path(item.metadata), {"metadata": meta, "spec": spec}, MERGE_PATCH)

    async def _delete(self, item: ScaledService) -> None:
        body = {"preconditions": {"uid": item.metadata.uid}}
        await self._api.call("DELETE", item_path(item.metadata), body)

    def _refuse(self, key: str, error: ApiError) -> None:
        what, remedy = f"refused by the API server: {error.message}", "fix what its message names"
        problem = Problem(Reason.REFUSED, ENABLED_LABEL, what, remedy, SERVICE)
        if self._refused.get(key) != problem:
            self._refused[key] = problem
            self._on_problems()

    def labeled_service(self, key: str) -> Service | None:
        """Return the labeled Service of that name; while it exists, a deleted ScaledService is created again."""
        service = self._services.get(key)
        gone = service is None or service.metadata.deletion_timestamp is not None
        return service if service and not gone and is_enabled(service) else None

    def _owned_scaled_service(self, key: str) -> ScaledService | None:
        item = self._scaled.get(key)
        return item if item and _owner_uid(item) else None

    def _find_problems(self, key: str) -> tuple[Problem, ...]:
        service = self.labeled_service(key)
        if service is None:
            unlabeled = self._services.get(key)
            problem = label_problem(unlabeled) if unlabeled else None
            return (problem,) if problem else ()
        item = self._scaled.get(key)
        if item and not _owner_uid(item):
            what = f"ScaledService {key} exists and was not created from this label, so it is not changed"
            right = "remove the label from the Service, or delete the ScaledService"
            return (Problem(Reason.NAME_TAKEN, ENABLED_LABEL, what, right, SERVICE, harmless=True),)
        return parse_annotations(service, self._cluster)[1]


def _written(fields: PartialSpec) -> str:
    return msgspec.json.encode(fields, order="sorted").decode()


def _read(text: str) -> PartialSpec:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError:
        return {}
