"""Informers of the kinds that targets have: each kind is discovered, then all its objects are watched.

A kind that does not exist is looked up again until it does. A watched kind is given up only when discovery reports that
it is gone. Annotations and labels are not stored: with 10,000 Deployments they would take most of the memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec
import structlog

from reconciler.core.reasons import Diagnosis, Reason
from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.client.discovery import Discovery, NoSuchKind, ScalableResource
from reconciler.kubernetes.client.errors import DENIED, NOT_FOUND, ApiError, Unreachable
from reconciler.kubernetes.client.informer import Informer
from reconciler.kubernetes.types.objects import Condition, ObjectMeta, Struct
from reconciler.kubernetes.types.resource_requests import Template, requests_of
from reconciler.ports.backend import UNKNOWN_REQUESTS, ResourceRequests

log = structlog.get_logger()

REDISCOVER_EVERY_SECONDS = 3.0
CHECK_EVERY_SECONDS = 1.0
PAUSED = "DeploymentPaused"
"""Reason of the condition Progressing of a Deployment that does not roll out its template."""


class _Meta(Struct, frozen=True):
    name: str = ""
    namespace: str = ""
    resource_version: str = ""


class _Spec(Struct, frozen=True):
    replicas: int | None = None
    template: Template | None = None


class _Status(Struct, frozen=True):
    conditions: tuple[Condition, ...] | None = ()


class _Plain(Struct, frozen=True):
    metadata: _Meta = _Meta()
    spec: _Spec = _Spec()
    status: _Status = _Status()


class _Other(Struct, frozen=True):
    metadata: _Meta = _Meta()


class TargetObject(Struct, frozen=True):
    """The stored part of an object that is a target or might become one."""

    metadata: ObjectMeta
    replicas: int | None = None
    """None if only the scale subresource has the replicas."""
    failures: tuple[Condition, ...] = ()
    """Conditions that explain why pods are not created."""
    asks: ResourceRequests = UNKNOWN_REQUESTS


_PLAIN = msgspec.json.Decoder(_Plain)
_OTHER = msgspec.json.Decoder(_Other)


def decode_builtin(raw: bytes | msgspec.Raw) -> TargetObject:
    """Decode an object of a built-in workload kind. Raises `msgspec.DecodeError`."""
    read = _PLAIN.decode(raw)
    failures = tuple(
        one for one in read.status.conditions or () if one.type == "ReplicaFailure" or one.reason == PAUSED
    )
    replicas = 1 if read.spec.replicas is None else read.spec.replicas
    asks = requests_of(read.spec.template) if read.spec.template else UNKNOWN_REQUESTS
    return TargetObject(_meta(read.metadata), replicas, failures, asks)


def decode_custom(raw: bytes | msgspec.Raw) -> TargetObject:
    """Decode the metadata of an object of any kind. Raises `msgspec.DecodeError`."""
    return TargetObject(_meta(_OTHER.decode(raw).metadata))


def _meta(read: _Meta) -> ObjectMeta:
    return ObjectMeta(read.name, read.namespace, resource_version=read.resource_version)


class ResourceWatch:
    """A watch of one kind: its resource and objects, or an error."""

    def __init__(
        self,
        api: Api,
        discovery: Discovery,
        named: tuple[str, str],
        namespaces: Sequence[str | None],
        changed: Callable[[str], None],
        turned: Callable[[], None],
    ) -> None:
        """Create a watch of the apiVersion and kind in `named`.

        `changed` is called with the key of a changed object, `turned` when `resource` or `diagnosis` changed, or the
        first list is complete.
        """
        self._api, self._discovery, self._named, self._namespaces = api, discovery, named, namespaces
        self._changed, self._turned = changed, turned
        self._informers: dict[str | None, Informer[TargetObject]] = {}
        self.resource: ScalableResource | None = None
        self.is_absent = False
        """True if the kind does not exist."""
        self.diagnosis: Diagnosis | None = None
        """Reason why its objects cannot be read; None if they can, or if that is not known yet."""

    def informer(self, namespace: str) -> Informer[TargetObject] | None:
        """Return the informer of the objects in a namespace."""
        return self._informers.get(None) or self._informers.get(namespace)

    async def run(self) -> None:
        """Discover and watch the kind until cancelled."""
        while True:
            try:
                self.resource = await self._discovery.find(*self._named)
            except NoSuchKind as error:
                self._set_diagnosis(error.diagnosis, absent=True)
            except (ApiError, Unreachable, msgspec.DecodeError) as error:
                api_version, kind = self._named
                log.warning("failed to look up a kind", api_version=api_version, kind=kind, error=str(error))
                if isinstance(error, ApiError) and error.status in DENIED:
                    message = f"zenvoy may not read the API discovery: {error.message}"
                    self._set_diagnosis(Diagnosis(Reason.FORBIDDEN, message))
            else:
                await self._watch(self.resource)
                self.resource = None
            await asyncio.sleep(REDISCOVER_EVERY_SECONDS)

    async def _watch(self, kind: ScalableResource) -> None:
        """Watch all objects until discovery reports that the kind is gone."""
        decode = decode_builtin if kind.is_plain else decode_custom
        for namespace in self._namespaces:
            self._informers[namespace] = Informer(
                self._api, kind.path(namespace), decode, lambda key, _: self._changed(key), None, self._turned
            )
        try:
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(informer.run()) for informer in self._informers.values()]
                self._set_diagnosis(None)
                while self._still_exists(kind):
                    await asyncio.sleep(CHECK_EVERY_SECONDS)
                for task in running:
                    task.cancel()
        finally:
            self._informers.clear()

    def _still_exists(self, kind: ScalableResource) -> bool:
        """Return whether the kind still exists, and update `diagnosis`."""
        found = None
        for informer in self._informers.values():
            if informer.error_status == NOT_FOUND:
                self._discovery.forget(kind.api_version)
                return False
            if informer.error_status in DENIED:
                message = f"zenvoy may not watch {kind.resource}; add it to the chart's `scaleTargets`"
                found = Diagnosis(Reason.FORBIDDEN, message)
        if found != self.diagnosis:
            self._set_diagnosis(found)
        return True

    def _set_diagnosis(self, diagnosis: Diagnosis | None, absent: bool = False) -> None:
        self.diagnosis, self.is_absent = diagnosis, absent
        self._turned()
