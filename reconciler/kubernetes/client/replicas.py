"""Addresses of all replicas of the reconciler, ready or not, from the EndpointSlices of their Service."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from ipaddress import ip_address
from typing import Any

from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.client.informer import Informer
from reconciler.kubernetes.types.builtin import SERVICE_NAME_LABEL, EndpointSlice, canonical
from reconciler.kubernetes.types.objects import decoder, name_selector, path


class ReplicaList:
    """The replicas' addresses, current while `run` is running.

    The Service publishes addresses that are not ready, so that a starting replica counts. Only addresses of the family
    of `own` are included: with two families each replica has two addresses and joins by one. `changed` is called when
    endpoints change.
    """

    def __init__(
        self, api: Api, namespace: str, service: str, own: str, changed: Callable[[], None] = lambda: None
    ) -> None:
        self._notify = changed
        self._family = f"IPv{ip_address(own).version}"
        self._informer = Informer(
            api,
            path("discovery.k8s.io/v1", "endpointslices", namespace),
            decoder(EndpointSlice),
            self._changed,
            {"labelSelector": name_selector(SERVICE_NAME_LABEL, service)},
        )
        self._addresses: frozenset[str] = frozenset()

    def addresses(self) -> frozenset[str]:
        """Return the IP addresses."""
        return self._addresses

    @property
    def synced(self) -> bool:
        """True once the list was received completely."""
        return self._informer.synced

    def run(self) -> Coroutine[Any, Any, None]:
        """Watch until cancelled."""
        return self._informer.run()

    def _changed(self, _: str, __: EndpointSlice | None) -> None:
        slices = (item for item in self._informer.items.values() if item.address_type == self._family)
        endpoints = (endpoint for item in slices for endpoint in item.endpoints or ())
        self._addresses = frozenset(canonical(address) for endpoint in endpoints for address in endpoint.addresses)
        self._notify()
