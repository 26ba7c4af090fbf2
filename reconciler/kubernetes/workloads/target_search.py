"""Search for the workload that a Service selects, for services whose target does not exist.

Most charts name a Deployment after the release and its Service differently. The diagnosis then names the workload whose
pods the Service selects, and what to write. A workload of another kind, such as a Rollout, is found as the owner of the
pods. The search is repeated less and less often until the target exists.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import msgspec
import structlog

from reconciler.concurrency import Backoff
from reconciler.core.reasons import Diagnosis
from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.client.errors import FORBIDDEN, ApiError, Unreachable, ignoring
from reconciler.kubernetes.config.service_config import ServiceConfig
from reconciler.kubernetes.types.builtin import Service
from reconciler.kubernetes.types.objects import Object, ObjectList, ObjectMeta, OwnerReference, Struct, decoder, path
from reconciler.kubernetes.types.scaled_service import PREFIX
from reconciler.kubernetes.types.selectors import selector_of
from reconciler.kubernetes.workloads.target_observer import Spawn, Task

log = structlog.get_logger()

APPS, REPLICA_SET = "apps/v1", "ReplicaSet"
KINDS = (("Deployment", "deployments"), ("StatefulSet", "statefulsets"))
WITHOUT_SCALE = ("DaemonSet", "Job", "Node")
"""Kinds of owners that have no scale; a Node owns the static pods of its kubelet."""
BACKOFF = Backoff(2.0, 60.0)
MAX_NAMED = 3
"""Number of workloads that a diagnosis names."""


class _Template(Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()


class _Spec(Struct, frozen=True):
    template: _Template = _Template()


class _Workload(Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()
    spec: _Spec = _Spec()


_WORKLOADS, _PODS = decoder(ObjectList[_Workload]), decoder(ObjectList[Object])


class TargetSearch:
    """The searches for all services whose target does not exist."""

    def __init__(self, api: Api, services: Mapping[str, Service], changed: Callable[[str], None], spawn: Spawn) -> None:
        """Create a search; `changed` is called with a service for which a different workload was found."""
        self._api, self._services, self._changed, self._spawn = api, services, changed, spawn
        self._tasks: dict[str, Task] = {}
        self._found: dict[str, tuple[str, ...]] = {}

    def explain(self, config: ServiceConfig, diagnosis: Diagnosis) -> Diagnosis:
        """Return the diagnosis of a missing target, with the workload to use instead once it is known."""
        name = config.spec.name
        if name not in self._tasks:
            self._tasks[name] = self._spawn(self._search(config), f"search for the target of {name}")
        found = self._found.get(name, ())
        return Diagnosis(diagnosis.code, f"{diagnosis.message}; {_remedy(config, found)}") if found else diagnosis

    def leave(self, service: str) -> None:
        """Stop searching for a service."""
        self._found.pop(service, None)
        if task := self._tasks.pop(service, None):
            task.cancel()

    async def _search(self, config: ServiceConfig) -> None:
        name = config.spec.name
        for pause in BACKOFF.delays():
            try:
                found = await self._selected(config)
            except (ApiError, Unreachable, msgspec.DecodeError) as error:
                log.debug("failed to search for a target", service=name, error=str(error))
            else:
                if found != self._found.get(name, ()):
                    self._found[name] = found
                    self._changed(name)
            await asyncio.sleep(pause)

    async def _selected(self, config: ServiceConfig) -> tuple[str, ...]:
        """Return the workloads whose pods the Service selects, as `Kind/name`."""
        service = self._services.get(config.service_key)
        if service is None or not service.pod_selector:
            return ()
        namespace, selector, found = config.target.namespace, service.pod_selector, list[str]()
        for kind, plural in KINDS:
            workloads = await self._listed(path(APPS, plural, namespace))
            selected = [one for one in workloads if selector.items() <= one.spec.template.metadata.labels.items()]
            found += sorted(f"{kind}/{one.metadata.name}" for one in selected)
        return tuple(found or await self._owners(namespace, selector_of(selector)))

    async def _owners(self, namespace: str, selector: str) -> list[str]:
        """Return the owners of the selected pods, as `Kind/name` or `apiVersion/Kind/name`."""
        pods = _PODS(await self._api.get(path("v1", "pods", namespace), {"labelSelector": selector})).items
        found = {owner for pod in pods if (owner := _controller(pod))}
        if any(owner.kind == REPLICA_SET for owner in found):
            sets = await self._listed(path(APPS, "replicasets", namespace))
            above = {one.metadata.name: _controller(one) for one in sets}
            found = {above.get(owner.name) or owner if owner.kind == REPLICA_SET else owner for owner in found}
        return sorted({_named(owner) for owner in found})

    async def _listed(self, collection: str) -> tuple[_Workload, ...]:
        """Return the workloads of one kind; none if zenvoy may not list that kind."""
        with ignoring(FORBIDDEN):
            return _WORKLOADS(await self._api.get(collection)).items
        return ()


def _controller(one: Object | _Workload) -> OwnerReference | None:
    return next((owner for owner in one.metadata.owner_references if owner.controller), None)


def _named(owner: OwnerReference) -> str:
    name = f"{owner.kind}/{owner.name}"
    return name if owner.api_version == APPS else f"{owner.api_version}/{name}"


def _remedy(config: ServiceConfig, found: tuple[str, ...]) -> str:
    named = " and ".join(found[:MAX_NAMED]) + (" and others" if len(found) > MAX_NAMED else "")
    selects = f"Service {config.service_key} selects the pods of {named}"
    if sleepers := [one for one in found if one.split("/")[-2] not in WITHOUT_SCALE]:
        *version, kind, name = sleepers[0].split("/")
        of = f"apiVersion: {'/'.join(version)}, " if version else ""
        return (
            f"{selects}: annotate the Service with {PREFIX}target: {sleepers[0]}, or create the ScaledService again "
            f"with scaleTargetRef: {{{of}kind: {kind}, name: {name}}}"
        )
    return f"{selects}, which cannot be scaled to zero"
