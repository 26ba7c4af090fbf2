"""Endpoints of a Service, from its EndpointSlices.

Ready endpoints are preferred. If none is ready, terminating endpoints that still serve are used, as kube-proxy does.
Endpoints that are starting are used only if the pod's own probes pass (`probes/early_endpoints.py`).
IPv4 is preferred to IPv6: both families of a dual-stack Service lead to the same pods, and an Envoy or a holder without
IPv6 is more common than one without IPv4.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address
from typing import Any

from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.client.pod_list import endpoint_slices
from reconciler.kubernetes.types.builtin import Endpoint, EndpointSlice


@dataclass(frozen=True, slots=True)
class PodEndpoint:
    """One address of one pod."""

    address: str
    """`ip:port`, IPv6 in brackets."""
    pod: str
    """Uid of the pod, or the address if the slice names no pod."""
    terminating: bool = False
    """True if the pod is terminating but still serves."""
    ipv6: bool = False
    starting: bool = False
    """True if Kubernetes does not call the pod ready, and it is not terminating."""
    pod_name: str = field(default="", compare=False)
    """Name of the pod; empty if the slice names no pod."""

    @property
    def rank(self) -> tuple[bool, bool, bool]:
        """Preference; only endpoints of the lowest rank are used."""
        return self.starting, self.terminating, self.ipv6


def pod_endpoints(slices: Iterable[EndpointSlice], port: str) -> tuple[PodEndpoint, ...]:
    """Return the endpoints of a Service port, best rank first, those that are starting last.

    The name of a Service's only port may be empty.
    """
    found: dict[str, PodEndpoint] = {}
    for each in slices:
        if each.address_type not in ("IPv4", "IPv6"):
            continue
        numbers = {one.port for one in each.ports or () if one.name == port and one.protocol == "TCP" and one.port}
        for endpoint in each.endpoints or ():
            for number in numbers if endpoint.addresses else ():
                one = _pod_endpoint(endpoint, each.address_type == "IPv6", number)
                # An endpoint that moves between slices is in both: the better one counts.
                if one and (one.address not in found or one.rank < found[one.address].rank):
                    found[one.address] = one
    return tuple(sorted(found.values(), key=lambda endpoint: (endpoint.rank, endpoint.address)))


def _pod_endpoint(endpoint: Endpoint, ipv6: bool, port: int) -> PodEndpoint | None:
    # All addresses of an endpoint belong to the same pod; the API recommends using the first.
    ip, conditions = endpoint.addresses[0], endpoint.conditions
    if not _is_ip(ip):
        return None
    address = f"[{ip}]:{port}" if ipv6 else f"{ip}:{port}"
    ref = endpoint.target_ref
    pod, name = (ref.uid if ref else "") or address, ref.name if ref else ""
    # With publishNotReadyAddresses, a pod is ready also while it is terminating.
    ready, terminating = conditions.is_ready, bool(conditions.terminating)
    if terminating and not (ready or conditions.serving):
        return None
    return PodEndpoint(address, pod, terminating, ipv6, starting=not (ready or terminating), pod_name=name)


@lru_cache(maxsize=65536)
def _is_ip(text: str) -> bool:
    """Return whether the text is an IP address.

    The API server also accepts addresses such as `010.0.0.1`, which some read as 8.0.0.1, and Envoy rejects.
    """
    try:
        ip_address(text)
    except ValueError:
        return False
    return "%" not in text


class EndpointSlices:
    """The EndpointSlices of all Services, by Service."""

    def __init__(
        self, api: Api, namespaces: Sequence[str | None], changed: Callable[[str], None], synced: Callable[[], None]
    ) -> None:
        """Create the informers; `synced` is called after each first complete list."""
        self.listeners = [changed]
        """Called with the Service (`namespace/name`) when any of its EndpointSlices changes."""
        self._of: dict[str, tuple[str, ...]] = {}
        self._service: dict[str, str] = {}
        self._informers = [endpoint_slices(api, one, self._change, synced=synced) for one in namespaces]

    @property
    def synced(self) -> bool:
        """True once every list was received completely."""
        return all(informer.synced for informer in self._informers)

    def run(self) -> list[Coroutine[Any, Any, None]]:
        """Return the coroutines that watch until cancelled."""
        return [informer.run() for informer in self._informers]

    def pod_endpoints(self, service: str, port: str) -> tuple[PodEndpoint, ...]:
        """Return the endpoints of a Service port, best rank first."""
        return pod_endpoints((each for each in self.slices(service) if not each.has_proxies), port)

    def slices(self, service: str) -> list[EndpointSlice]:
        """Return the EndpointSlices of a Service; of a captured one, also those of its companion and of the proxies."""
        found = (informer.items.get(key) for key in self._of.get(service, ()) for informer in self._informers)
        return [each for each in found if each is not None]

    def _change(self, key: str, item: EndpointSlice | None) -> None:
        before, after = self._service.get(key), item.service if item else ""
        if before and before != after:
            del self._service[key]
            if rest := tuple(one for one in self._of.pop(before) if one != key):
                self._of[before] = rest
            self._notify(before)
        if after:
            if before != after:
                self._service[key] = after
                self._of[after] = (*self._of.get(after, ()), key)
            self._notify(after)

    def _notify(self, service: str) -> None:
        for changed in self.listeners:
            changed(service)
