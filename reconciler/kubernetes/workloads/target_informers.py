"""The kinds of targets that are in use: each found by discovery, then all its objects watched.

Rules: a kind that does not exist is asked for again until it does, and one that went away is given up only when
discovery says so. Annotations and labels are not kept: with 10,000 Deployments they would be most of the memory.
Counterparts: `discovery.py`, which finds a kind; `scaler.py`, which is told of its object.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import structlog

from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.client.discovery import Discovery, NoSuchKind, ScalableResource
from reconciler.kubernetes.client.errors import ApiError, Unreachable
from reconciler.kubernetes.client.informer import Informer
from reconciler.kubernetes.types.objects import Condition, ObjectMeta, Struct
from reconciler.kubernetes.types.resource_requests import Template, requests_of
from reconciler.ports.backend import UNSAID, Asks

log = structlog.get_logger()

MISSING_EVERY_SECONDS = 3.0
LOOK_EVERY_SECONDS = 1.0
NO_RIGHT = ("401", "403")
NOT_THERE = "404"


class _Meta(Struct, frozen=True):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    deletion_timestamp: datetime | None = None


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
    """What is kept of an object that is, or might be, a target."""

    metadata: ObjectMeta
    replicas: int | None = None
    """None: only its scale subresource tells."""
    failures: tuple[Condition, ...] = ()
    """Conditions that say why there are no pods."""
    asks: Asks = UNSAID


_PLAIN = msgspec.json.Decoder(_Plain)
_OTHER = msgspec.json.Decoder(_Other)


def decode_builtin(raw: bytes | msgspec.Raw) -> TargetObject:
    """Raises `msgspec.DecodeError`."""
    read = _PLAIN.decode(raw)
    failures = tuple(one for one in read.status.conditions or () if one.type == "ReplicaFailure")
    replicas = 1 if read.spec.replicas is None else read.spec.replicas
    return TargetObject(
        _meta(read.metadata), replicas, failures, requests_of(read.spec.template) if read.spec.template else UNSAID
    )


def decode_custom(raw: bytes | msgspec.Raw) -> TargetObject:
    """Raises `msgspec.DecodeError`."""
    return TargetObject(_meta(_OTHER.decode(raw).metadata))


def _meta(read: _Meta) -> ObjectMeta:
    return ObjectMeta(read.name, read.namespace, read.uid, read.resource_version, 0, None, read.deletion_timestamp)


class ResourceWatch:
    """One kind: what it is, its objects, or why there are none to see."""

    def __init__(
        self,
        api: Api,
        discovery: Discovery,
        named: tuple[str, str],
        namespaces: Sequence[str | None],
        changed: Callable[[str], None],
        turned: Callable[[], None],
    ) -> None:
        """`named` is apiVersion and kind. `changed` is told the key of each object that changed, `turned` when `kind`
        or `trouble` did or everything was seen once."""
        self._api, self._discovery, self._named, self._namespaces = api, discovery, named, namespaces
        self._changed, self._turned = changed, turned
        self._informers: dict[str | None, Informer[TargetObject]] = {}
        self.kind: ScalableResource | None = None
        self.is_absent = False
        """Whether there is no such kind, and so no object of it."""
        self.trouble: str | None = None
        """Why its objects cannot be seen; None while they can, or while that is not known."""

    def item(self, namespace: str, name: str) -> TargetObject | None:
        informer = self._informer(namespace)
        return informer.items.get(f"{namespace}/{name}") if informer else None

    def is_unreadable(self, namespace: str, name: str) -> bool:
        """Return whether the object exists, though what it says cannot be read."""
        informer = self._informer(namespace)
        return informer is not None and f"{namespace}/{name}" in informer.unreadable

    def is_seen(self, namespace: str) -> bool:
        """Whether an object that is not there does not exist."""
        informer = self._informer(namespace)
        return informer is not None and informer.synced

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                self.kind = await self._discovery.find(*self._named)
            except NoSuchKind as error:
                self._turn(str(error), absent=True)
            except ApiError as error:
                self._tell_failure(error)
                if str(error.status) in NO_RIGHT:
                    self._turn(f"Forbidden: zenvoy may not ask which kinds there are: {error.message}")
            except (Unreachable, msgspec.DecodeError) as error:
                self._tell_failure(error)
            else:
                await self._watch(self.kind)
                self.kind = None
            await asyncio.sleep(MISSING_EVERY_SECONDS)

    async def _watch(self, kind: ScalableResource) -> None:
        """Until discovery says that there is no such kind any more."""
        decode = decode_builtin if kind.is_plain else decode_custom
        for namespace in self._namespaces:
            self._informers[namespace] = Informer(
                self._api, kind.path(namespace), decode, lambda key, _: self._changed(key), None, self._turned
            )
        running = [asyncio.create_task(informer.run()) for informer in self._informers.values()]
        try:
            self._turn(None)
            while await self._goes_on(kind):
                for task in running:
                    if task.done():
                        task.result()
                await asyncio.sleep(LOOK_EVERY_SECONDS)
        finally:
            self._informers.clear()
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _goes_on(self, kind: ScalableResource) -> bool:
        """Whether the kind is still there; says why its objects cannot be seen."""
        found = None
        for informer in self._informers.values():
            said = informer.trouble or ""
            if said.startswith(NOT_THERE):
                self._discovery.forget(kind.api_version)
                return False
            if said.startswith(NO_RIGHT):
                found = f"Forbidden: zenvoy may not watch {kind.resource}; add it to the chart's `scaleTargets`"
        if found != self.trouble:
            self._turn(found)
        return True

    def _tell_failure(self, error: Exception) -> None:
        log.warning("a kind cannot be looked up", api_version=self._named[0], kind=self._named[1], error=str(error))

    def _turn(self, trouble: str | None, absent: bool = False) -> None:
        self.trouble, self.is_absent = trouble, absent
        self._turned()

    def _informer(self, namespace: str) -> Informer[TargetObject] | None:
        return self._informers.get(None) or self._informers.get(namespace)


class TargetInformers:
    """All kinds in use."""

    def __init__(
        self,
        api: Api,
        namespaces: Sequence[str | None],
        changed: Callable[[tuple[str, str], str], None],
        turned: Callable[[tuple[str, str]], None],
        spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]],
    ) -> None:
        """`changed` and `turned` are told apiVersion and kind of what changed, as `ResourceWatch` says it."""
        self._api, self._namespaces, self._spawn = api, namespaces, spawn
        self._changed, self._turned = changed, turned
        self._discovery = Discovery(api)
        self._watches: dict[tuple[str, str], ResourceWatch] = {}
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}

    @property
    def watches(self) -> Mapping[tuple[str, str], ResourceWatch]:
        return self._watches

    def use(self, kinds: frozenset[tuple[str, str]]) -> None:
        """These are the kinds in use from now on."""
        for gone in self._watches.keys() - kinds:
            del self._watches[gone]
            self._tasks.pop(gone).cancel()
        for named in kinds - self._watches.keys():
            watch = self._watches[named] = self._made(named)
            self._tasks[named] = self._spawn(watch.run(), f"watch of {named[1]}")

    def _made(self, named: tuple[str, str]) -> ResourceWatch:
        return ResourceWatch(
            self._api,
            self._discovery,
            named,
            self._namespaces,
            lambda key: self._changed(named, key),
            lambda: self._turned(named),
        )
