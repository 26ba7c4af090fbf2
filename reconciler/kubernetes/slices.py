"""The EndpointSlices of all Services, by Service. Counterpart: `endpoints.py`, which says what they offer."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from reconciler.kubernetes.api import Api
from reconciler.kubernetes.endpoints import Offer, offers
from reconciler.kubernetes.informer import Informer
from reconciler.kubernetes.objects import decoder, path
from reconciler.kubernetes.workloads import SERVICE_NAME_LABEL, EndpointSlice

_DECODE = decoder(EndpointSlice)


class Slices:
    """A copy of them, kept up."""

    def __init__(
        self, api: Api, namespaces: Sequence[str | None], changed: Callable[[str], None], synced: Callable[[], None]
    ) -> None:
        """`changed` is told the Service (`namespace/name`), `synced` called for each namespace seen as a whole."""
        self._changed = changed
        self._of: dict[str, tuple[str, ...]] = {}
        self._service: dict[str, str] = {}
        query = {"labelSelector": SERVICE_NAME_LABEL}
        self._informers = [
            Informer(api, path("discovery.k8s.io/v1", "endpointslices", one), _DECODE, self._change, query, synced)
            for one in namespaces
        ]

    @property
    def synced(self) -> bool:
        return all(informer.synced for informer in self._informers)

    def run(self) -> list[Coroutine[Any, Any, None]]:
        """What keeps it up: each runs until cancelled."""
        return [informer.run() for informer in self._informers]

    def offers(self, service: str, port: str) -> tuple[Offer, ...]:
        """All that can be dialled for the Service's port of that name."""
        found = (informer.items.get(key) for key in self._of.get(service, ()) for informer in self._informers)
        return offers((one for one in found if one is not None), port)

    def _change(self, key: str, item: EndpointSlice | None) -> None:
        before, after = self._service.get(key), item.service if item else ""
        if before and before != after:
            del self._service[key]
            rest = tuple(one for one in self._of[before] if one != key)
            if rest:
                self._of[before] = rest
            else:
                del self._of[before]
            self._changed(before)
        if after:
            if before != after:
                self._service[key] = after
                self._of[after] = (*self._of.get(after, ()), key)
            self._changed(after)
