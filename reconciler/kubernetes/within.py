"""A copy of all objects of one kind within some namespaces, or everywhere: an informer for each."""

from __future__ import annotations

import asyncio
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

import msgspec

from reconciler.kubernetes.api import Api
from reconciler.kubernetes.informer import HasMetadata, Informer
from reconciler.kubernetes.objects import path

_T = TypeVar("_T", bound=HasMetadata)


class Within(Generic[_T]):
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
