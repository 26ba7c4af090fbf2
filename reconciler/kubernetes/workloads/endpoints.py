"""Which addresses a Service's EndpointSlices offer. Pure.

Rules: ready ones; where none is ready, those that still serve while they end, as kube-proxy does. IPv4 where there is
any, IPv6 otherwise: both families of a dual-stack Service lead to the same pods, and an Envoy or a holder without IPv6
is the commoner one. Counterparts: `slices.py`, which keeps the slices; `workload.py`, which knows who is about to end;
`probing.py`, which takes the best rank of which anything can be reached.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from typing import Any

from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.client.informer import Informer
from reconciler.kubernetes.types.builtin import SERVICE_NAME_LABEL, Endpoint, EndpointSlice
from reconciler.kubernetes.types.objects import decoder, path

FAMILIES = ("IPv4", "IPv6")


@dataclass(frozen=True, slots=True)
class PodEndpoint:
    """One address of one pod."""

    address: str
    """`ip:port`, IPv6 in brackets."""
    pod: str
    """Its uid; the address where the slice names no pod."""
    terminating: bool = False
    """It serves, but its end has begun."""
    ipv6: bool = False

    @property
    def rank(self) -> tuple[bool, bool]:
        """Of two that differ in it, only the lesser is used."""
        return self.terminating, self.ipv6


def pod_endpoints(slices: Iterable[EndpointSlice], port: str) -> tuple[PodEndpoint, ...]:
    """All that could be dialled for the Service's port of that name (empty for its only one), the best rank first."""
    found: dict[str, PodEndpoint] = {}
    for each in slices:
        if each.address_type not in FAMILIES:
            continue
        numbers = {one.port for one in each.ports or () if one.name == port and one.protocol == "TCP" and one.port}
        for endpoint in each.endpoints or ():
            for number in numbers if endpoint.addresses else ():
                offer = _offer(endpoint, each.address_type == "IPv6", number)
                # One is in two slices while it moves between them: what is better of it holds.
                if offer and (offer.address not in found or offer.rank < found[offer.address].rank):
                    found[offer.address] = offer
    return tuple(sorted(found.values(), key=lambda offer: (offer.rank, offer.address)))


def _offer(endpoint: Endpoint, ipv6: bool, port: int) -> PodEndpoint | None:
    # All addresses of one endpoint are the same pod's, and the API says to use the first.
    ip, conditions = endpoint.addresses[0], endpoint.conditions
    if not _is_ip(ip):
        return None
    address = f"[{ip}]:{port}" if ipv6 else f"{ip}:{port}"
    pod = (endpoint.target_ref.uid if endpoint.target_ref else "") or address
    ready = conditions.ready is None or conditions.ready
    serving = ready if conditions.serving is None else conditions.serving
    if ready:
        return PodEndpoint(address, pod, terminating=False, ipv6=ipv6)
    return PodEndpoint(address, pod, terminating=True, ipv6=ipv6) if serving and conditions.terminating else None


@lru_cache(maxsize=65536)
def _is_ip(text: str) -> bool:
    """The API server also takes such as `010.0.0.1`, which one reads as 8.0.0.1, another as 10.0.0.1, and Envoy not at
    all."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return "%" not in text


_DECODE = decoder(EndpointSlice)


class EndpointSlices:
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

    def pod_endpoints(self, service: str, port: str) -> tuple[PodEndpoint, ...]:
        """All that can be dialled for the Service's port of that name."""
        found = (informer.items.get(key) for key in self._of.get(service, ()) for informer in self._informers)
        return pod_endpoints((one for one in found if one is not None), port)

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
