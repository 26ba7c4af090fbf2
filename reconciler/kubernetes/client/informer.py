"""A copy of all objects of one kind, kept up by list and watch, as the API's concepts page describes it under
"Efficient detection of changes".

Rules:
- A deletion is believed when a watch says DELETED, or when a complete list lacks the object; never because of an error.
- A watch that broke goes on from the last version that it named; 410, or one refusal after another, lists anew.
- An object that cannot be read stays as it was last read; the others know nothing of it.
Counterparts: `api.py`, which carries bytes, and `builtin.py` and `scaled_service.py`, which say what of them is kept.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

import msgspec
import stamina
import structlog

from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.client.errors import ApiError, Unreachable
from reconciler.kubernetes.types.objects import Object, ObjectMeta, path

log = structlog.get_logger()

PAGE = 500
PAGE_TIMEOUT_SECONDS = 30.0
WATCH_SECONDS = (60, 90)
"""How long one watch lasts, anywhere between, so that not all are renewed at once. Short, as this is also how long a
watch may go on that will never say anything again, where its connection still lives."""
WATCH_GRACE_SECONDS = 10.0
BRIEF_SECONDS = 1.0
"""A watch that ends sooner than this, without a word, did not end well."""
MOST_REFUSALS = 5
WAIT_FIRST_SECONDS, WAIT_MOST_SECONDS, WAIT_JITTER_SECONDS = 0.1, 5.0, 1.0
GONE = 410


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
    code: int = 0
    reason: str = ""
    message: str = ""


_PAGE = msgspec.json.Decoder(_Page)
_CHANGE = msgspec.json.Decoder(_Change)
_STATUS = msgspec.json.Decoder(_Status)
_OBJECT = msgspec.json.Decoder(Object)
_FAULTS = (Unreachable, ApiError, msgspec.DecodeError)


class Informer(Generic[_T]):
    """All objects at `path`. `on_change` is told of each that came, changed (with what it is now) or went (None)."""

    def __init__(
        self,
        api: Api,
        path: str,
        decode: Callable[[bytes | msgspec.Raw], _T],
        on_change: Callable[[str, _T | None], None],
        query: Mapping[str, str] | None = None,
        on_sync: Callable[[], None] | None = None,
    ) -> None:
        """`decode` raises `msgspec.DecodeError`; `query` selects, as in `{"labelSelector": "app=web"}`. `on_sync` is
        called once, after the first complete list was told."""
        self._api, self._path, self._decode, self._query = api, path, decode, dict(query or {})
        self._on_change, self._on_sync = on_change, on_sync
        self._items: dict[str, _T] = {}
        self._version: str | None = None
        """Where the next watch begins; None: a list has to come first."""
        self._heard = False
        self._refusals = 0
        self._out_of_touch_since: float | None = None
        self.synced = False
        """Whether the whole was seen once."""
        self.trouble: str | None = None
        """Why nothing is heard at present, for people; None while all is well."""
        self.unreadable: dict[str, str] = {}
        """Why an object could not be read, by key, while it cannot."""
        self.decode_errors = 0
        self.lists = 0

    @property
    def items(self) -> Mapping[str, _T]:
        """By `namespace/name`; changed before `on_change` is called."""
        return self._items

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            async for attempt in stamina.retry_context(
                on=_FAULTS,
                attempts=None,
                timeout=None,
                wait_initial=WAIT_FIRST_SECONDS,
                wait_max=WAIT_MOST_SECONDS,
                wait_jitter=WAIT_JITTER_SECONDS,
            ):
                with attempt:
                    await self._follow()

    async def _follow(self) -> None:
        """List if need be, then watch once. Raises what broke before anything was heard: then it is time to wait."""
        fresh, self._heard = self._version is None, False
        try:
            if fresh:
                await self._list()
            await self._watch()
        except ApiError as error:
            if error.status == GONE:
                self._version = None
                if self._heard or not fresh:
                    return
            self._refused(error)
        except msgspec.DecodeError as error:
            self._refused(error)
        except Unreachable as error:
            self._broke(error)

    async def _list(self) -> None:
        """The whole, page by page. What it lacks is deleted, once it is complete and every key in it was read."""
        seen: set[str] = set()
        whole, query = True, {**self._query, "limit": str(PAGE)}
        while True:
            try:
                page = _PAGE.decode(await self._api.get(self._path, query, PAGE_TIMEOUT_SECONDS))
            except ApiError as error:
                if error.status != GONE or "continue" not in query:
                    raise
                query = dict(self._query)  # the first pages have become too old for the rest: all of it at once
                continue
            self._in_touch()
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
        self.lists += 1
        if not self.synced:
            self.synced = True
            if self._on_sync:
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
            self._in_touch()
            async for line in lines:
                if line:
                    self._apply(_CHANGE.decode(line))
                    self._heard, self._refusals = True, 0
        if not self._heard and time.monotonic() - begin < BRIEF_SECONDS:
            raise Unreachable(f"watch of {self._path}: it ended at once")

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
                raise msgspec.DecodeError(f"a watch does not say {other!r}")
        self._version = _OBJECT.decode(change.object).metadata.resource_version or self._version

    def _read(self, raw: msgspec.Raw) -> str:
        """Take the object in; its key, or nothing when not even that can be read."""
        try:
            item = self._decode(raw)
        except msgspec.DecodeError as error:
            return self._unread(raw, error)
        key = item.metadata.key
        self.unreadable.pop(key, None)
        before = self._items.get(key)
        if before is None or before.metadata.resource_version != item.metadata.resource_version:
            self._items[key] = item
            self._on_change(key, item)
        return key

    def _unread(self, raw: msgspec.Raw, error: msgspec.DecodeError) -> str:
        self.decode_errors += 1
        try:
            key = _OBJECT.decode(raw).metadata.key
        except msgspec.DecodeError:
            key = ""
        if self.unreadable.get(key) != str(error):
            self.unreadable[key] = str(error)
            log.warning("an object cannot be read", path=self._path, object=key, error=str(error))
        return key

    def _delete(self, key: str) -> None:
        self.unreadable.pop(key, None)
        if self._items.pop(key, None) is not None:
            self._on_change(key, None)

    def _refused(self, error: Exception) -> None:
        self._refusals += not self._heard
        if (
            self._refusals >= MOST_REFUSALS
        ):  # one that was restored from a backup, say, and has yet to reach our version
            self._version = None
        self._broke(error)

    def _broke(self, error: Exception) -> None:
        if self._out_of_touch_since is None:
            self._out_of_touch_since = time.monotonic()
        if self.trouble != str(error):
            log.warning("the API server is not heard", path=self._path, error=str(error))
        self.trouble = str(error)
        if not self._heard:
            raise error

    def _in_touch(self) -> None:
        if self._out_of_touch_since is not None:
            away = time.monotonic() - self._out_of_touch_since
            log.info("the API server is heard again", path=self._path, away=round(away, 1))
        self._out_of_touch_since = self.trouble = None


class MultiNamespaceInformer(Generic[_T]):
    """`kind` is its apiVersion and plural; no `namespaces` are all. `on_sync` is told of each seen whole."""

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
        """By `namespace/name`."""

    @property
    def synced(self) -> bool:
        """Whether all of it was seen whole."""
        return all(informer.synced for informer in self._informers)

    @property
    def trouble(self) -> str | None:
        """Why nothing is heard of some of it at present, for people; None while all is well."""
        return next((informer.trouble for informer in self._informers if informer.trouble), None)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for informer in self._informers:
                tasks.create_task(informer.run())
