"""Informers: local copies of all objects of one kind, kept current by list and watch.

The protocol is "Efficient detection of changes" of the API concepts page.
- An object counts as deleted when a watch reports DELETED or a complete list lacks it, never because of an error.
- A broken watch resumes at its last version. Status 410, or several errors in a row, causes a new list.
- An object that cannot be decoded keeps its last decoded state; other objects are not affected.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import ChainMap
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

import msgspec
import stamina
import structlog

from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.client.errors import GONE, ApiError, Unreachable
from reconciler.kubernetes.types.objects import Object, ObjectMeta, name_selector, path

log = structlog.get_logger()

PAGE = 500
PAGE_TIMEOUT_SECONDS = 30.0
WATCH_SECONDS = (60, 90)
"""Range of a watch's duration; the spread keeps watches from being renewed at once. It is short because it also limits
how long a watch can hang on a connection that is still alive."""
WATCH_GRACE_SECONDS = 10.0
BRIEF_SECONDS = 1.0
"""A watch that ends sooner than this without an event counts as failed."""
MAX_ERRORS_IN_ROW = 5
WAIT_FIRST_SECONDS, WAIT_MAX_SECONDS, WAIT_JITTER_SECONDS = 0.1, 5.0, 1.0


class HasMetadata(Protocol):
    @property
    def metadata(self) -> ObjectMeta: ...


_T = TypeVar("_T", bound=HasMetadata)


class _ListMeta(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    continues: str = msgspec.field(default="", name="continue")


class _Page(msgspec.Struct):
    metadata: _ListMeta
    items: list[msgspec.Raw] | None = None


class _Change(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Status(msgspec.Struct):
    """The object of an `ERROR`."""

    code: int = 0
    reason: str = ""
    message: str = ""


_PAGE = msgspec.json.Decoder(_Page)
_CHANGE = msgspec.json.Decoder(_Change)
_OBJECT = msgspec.json.Decoder(Object)
_STATUS = msgspec.json.Decoder(_Status)
_ERRORS = (Unreachable, ApiError, msgspec.DecodeError)


async def list_objects(api: Api, where: str, query: Mapping[str, str] | None = None) -> AsyncIterator[msgspec.Raw]:
    """Yield all objects of a path, read page by page. Raises `ApiError` and `Unreachable`."""
    parameters = {**(query or {}), "limit": str(PAGE)}
    while True:
        page = _PAGE.decode(await api.get(where, parameters, PAGE_TIMEOUT_SECONDS))
        for raw in page.items or ():
            yield raw
        if not page.metadata.continues:
            return
        parameters["continue"] = page.metadata.continues


async def find_object(api: Api, kind: type[_T], collection: str, name: str) -> _T | None:
    """Return the object of a collection with this name, for which permission to list them is enough.

    Raises `ApiError`, `Unreachable`, and `msgspec.DecodeError`.
    """
    page = _PAGE.decode(await api.get(collection, {"fieldSelector": name_selector("metadata.name", name)}))
    found = [msgspec.json.decode(raw, type=kind) for raw in page.items or ()]
    return next((one for one in found if one.metadata.name == name), None)


class Informer(Generic[_T]):
    """A copy of all objects at `path`, or of those that `query` selects, as in `{"labelSelector": "app=web"}`.

    `decode` raises `msgspec.DecodeError`. `on_change` is called with the key and the object when it is added or
    changed, and with None when it is deleted. `on_sync` is called once, after the first complete list.
    """

    def __init__(
        self,
        api: Api,
        path: str,
        decode: Callable[[bytes | msgspec.Raw], _T],
        on_change: Callable[[str, _T | None], None],
        query: Mapping[str, str] | None = None,
        on_sync: Callable[[], None] = lambda: None,
    ) -> None:
        self._api, self._path, self._decode, self._query = api, path, decode, dict(query or {})
        self._on_change, self._on_sync = on_change, on_sync
        self._items: dict[str, _T] = {}
        self._version: str | None = None
        """Resource version at which the next watch starts; None if a list must come first."""
        self._received = False
        self._errors_in_row = 0
        self._disconnected_since: float | None = None
        self.synced = False
        """True once a complete list was received."""
        self.error: Exception | None = None
        """Error of the current disconnection; None while connected."""
        self.unreadable: dict[str, str] = {}
        """Decoding errors by object key, while they last."""

    @property
    def error_status(self) -> int | None:
        """HTTP status of the current error, if it is an API error."""
        return self.error.status if isinstance(self.error, ApiError) else None

    @property
    def items(self) -> Mapping[str, _T]:
        """Objects by `namespace/name`; updated before `on_change` is called."""
        return self._items

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            async for attempt in stamina.retry_context(
                on=_ERRORS,
                attempts=None,
                timeout=None,
                wait_initial=WAIT_FIRST_SECONDS,
                wait_max=WAIT_MAX_SECONDS,
                wait_jitter=WAIT_JITTER_SECONDS,
            ):
                with attempt:
                    await self._follow()

    async def _follow(self) -> None:
        """List if necessary, then watch once. Raises an error from before the first event, so that the caller waits."""
        fresh, self._received = self._version is None, False
        try:
            if fresh:
                await self._list()
            await self._watch()
        except _ERRORS as error:
            if isinstance(error, ApiError) and error.status == GONE:
                self._version = None
                if self._received or not fresh:
                    return
            if not isinstance(error, Unreachable):
                self._errors_in_row += not self._received
                # An API server restored from a backup, for example, has not reached our version.
                if self._errors_in_row >= MAX_ERRORS_IN_ROW:
                    self._version = None
            self._on_disconnected(error)

    async def _list(self) -> None:
        """List all pages. Objects that a complete list lacks are deleted, if all its keys could be read."""
        seen: set[str] = set()
        whole, query = True, {**self._query, "limit": str(PAGE)}
        while True:
            try:
                page = _PAGE.decode(await self._api.get(self._path, query, PAGE_TIMEOUT_SECONDS))
            except ApiError as error:
                if error.status != GONE or "continue" not in query:
                    raise
                query = dict(self._query)  # the continue token has expired: list everything in one page
                continue
            self._on_connected()
            for raw in page.items or ():
                key = self._read(raw)
                whole = whole and bool(key)
                seen.add(key)
            if not page.metadata.continues:
                break
            query["continue"] = page.metadata.continues
        for key in [key for key in self._items if key not in seen] if whole else ():
            self._delete(key)
        self._version = page.metadata.resource_version
        if not self.synced:
            self.synced = True
            self._on_sync()

    async def _watch(self) -> None:
        seconds = random.randint(*WATCH_SECONDS)
        query = {
            **self._query,
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version or "",
            "timeoutSeconds": str(seconds),
        }
        begin = time.monotonic()
        async with self._api.lines(self._path, query, seconds + WATCH_GRACE_SECONDS) as lines:
            self._on_connected()
            async for line in lines:
                if line:
                    self._apply(_CHANGE.decode(line))
                    self._received, self._errors_in_row = True, 0
        if not self._received and time.monotonic() - begin < BRIEF_SECONDS:
            raise Unreachable(f"watch of {self._path}: ended at once")

    def _apply(self, change: _Change) -> None:
        match change.type:
            case "ADDED" | "MODIFIED":
                self._read(change.object)
            case "DELETED":
                self._delete(_OBJECT.decode(change.object).metadata.key)
            case "ERROR":
                status = _STATUS.decode(change.object)
                raise ApiError(status.code, status.reason, status.message)
            case "BOOKMARK":
                pass
            case other:
                raise msgspec.DecodeError(f"unknown watch event type {other!r}")
        self._version = _OBJECT.decode(change.object).metadata.resource_version or self._version

    def _read(self, raw: msgspec.Raw) -> str:
        """Store the object and return its key, or an empty key if it cannot be decoded."""
        try:
            item = self._decode(raw)
        except msgspec.DecodeError as error:
            return self._record_unreadable(raw, error)
        key = item.metadata.key
        self.unreadable.pop(key, None)
        before = self._items.get(key)
        if before is None or before.metadata.resource_version != item.metadata.resource_version:
            self._items[key] = item
            self._on_change(key, item)
        return key

    def _record_unreadable(self, raw: msgspec.Raw, error: msgspec.DecodeError) -> str:
        try:
            key = _OBJECT.decode(raw).metadata.key
        except msgspec.DecodeError:
            key = ""
        if self.unreadable.get(key) != str(error):
            self.unreadable[key] = str(error)
            log.warning("failed to decode an object", path=self._path, object=key, error=str(error))
        return key

    def _delete(self, key: str) -> None:
        self.unreadable.pop(key, None)
        if self._items.pop(key, None) is not None:
            self._on_change(key, None)

    def _on_disconnected(self, error: Exception) -> None:
        if self._disconnected_since is None:
            self._disconnected_since = time.monotonic()
        if str(self.error) != str(error):
            log.warning("watch disconnected", path=self._path, error=str(error))
        self.error = error
        if not self._received:
            raise error

    def _on_connected(self) -> None:
        if self._disconnected_since is not None:
            away = time.monotonic() - self._disconnected_since
            log.info("watch reconnected", path=self._path, seconds=round(away, 1))
        self._disconnected_since = self.error = None


class MultiNamespaceInformer(Generic[_T]):
    """One informer per namespace, or one for all namespaces if `namespaces` is empty.

    `kind` is the apiVersion and the plural. `on_sync` is called after each first complete list.
    """

    def __init__(
        self,
        api: Api,
        kind: tuple[str, str],
        namespaces: Sequence[str],
        decode: Callable[[bytes | msgspec.Raw], _T],
        on_change: Callable[[str, _T | None], None],
        on_sync: Callable[[], None],
    ) -> None:
        places: Sequence[str | None] = namespaces or (None,)
        self._informers = [
            Informer(api, path(*kind, namespace), decode, on_change, on_sync=on_sync) for namespace in places
        ]
        self.items: Mapping[str, _T] = ChainMap(*(informer.items for informer in self._informers))  # type: ignore[arg-type]
        """Objects by `namespace/name`."""

    @property
    def synced(self) -> bool:
        """True once every list was received completely."""
        return all(informer.synced for informer in self._informers)

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for informer in self._informers:
                tasks.create_task(informer.run())
