"""The pods of one Service and those that have ended, from its EndpointSlices; for the proxy and for the reconciler.

The Service selects pods that are not ready too. A terminating pod stays in the slices until it has ended, so a pod that
left them forwards no traffic any more. A pod that was deleted by force counts as ended, as everywhere in Kubernetes. A
pod that was never in the slices may still be starting. If no pod is left, the Service itself may be gone, and nothing
is known. A pod counts as ended only after some seconds, because endpoints move between slices.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from ipaddress import ip_address
from typing import Any

from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.client.informer import Informer
from reconciler.kubernetes.types.builtin import SERVICE_NAME_LABEL, SLICES, EndpointSlice, canonical
from reconciler.kubernetes.types.objects import decoder, name_selector, path

CONFIRM_AFTER_SECONDS = 5.0
REMEMBER_ENDED_SECONDS = 900.0
"""An ended pod is remembered this long, which is longer than anything depends on it."""
_DECODE = decoder(EndpointSlice)


def endpoint_slices(
    api: Api,
    namespace: str | None,
    changed: Callable[[str, EndpointSlice | None], None],
    selector: str = SERVICE_NAME_LABEL,
    synced: Callable[[], None] = lambda: None,
) -> Informer[EndpointSlice]:
    """Return an informer of the EndpointSlices of Services; None for all namespaces."""
    query = {"labelSelector": selector}
    return Informer(api, path(*SLICES, namespace), _DECODE, changed, query, synced)


class PodList:
    """The pods of one Service, current while `run` is running.

    A pod is known by its name, as Envoys and holders are. With `own`, the IP address of this pod, each is known by its
    address of the same family, as replicas are, and nothing has ended while this pod is missing from the list. `ticks`
    is a monotonic clock in seconds. `changed` is called when endpoints change.
    """

    def __init__(
        self,
        api: Api,
        namespace: str,
        service: str,
        ticks: Callable[[], float],
        changed: Callable[[], None] = lambda: None,
        own: str | None = None,
    ) -> None:
        self._informer = endpoint_slices(api, namespace, self._changed, name_selector(SERVICE_NAME_LABEL, service))
        self._ticks, self._notify, self._own = ticks, changed, own
        self._family = f"IPv{ip_address(own).version}" if own else None
        self._there: frozenset[str] = frozenset()
        self.pods: dict[str, str] = {}
        """The pods by IP address."""
        self._left: dict[str, float] = {}

    def names(self) -> frozenset[str]:
        """Return the pods, ready or not."""
        return self._there

    def ended(self, pod: str) -> bool:
        """Return whether the pod was in the slices and has left them."""
        at = self._left.get(pod)
        is_usable = self._own in self._there if self._own else bool(self._there)
        return at is not None and is_usable and self._ticks() - at >= CONFIRM_AFTER_SECONDS

    @property
    def synced(self) -> bool:
        """True once the list was received completely."""
        return self._informer.synced

    def run(self) -> Coroutine[Any, Any, None]:
        """Watch until cancelled."""
        return self._informer.run()

    def _changed(self, _: str, __: EndpointSlice | None) -> None:
        pods = self._listed()
        self.pods, there = dict(pods), frozenset(pod for _, pod in pods)
        now, gone = self._ticks(), self._there - there
        left = self._left | dict.fromkeys(gone, now)
        self._left = {pod: at for pod, at in left.items() if pod not in there and now - at < REMEMBER_ENDED_SECONDS}
        self._there = there
        self._notify()

    def _listed(self) -> list[tuple[str, str]]:
        """Return the address and the name of each pod; with `own`, the address of a family is also the name."""
        slices = [item for item in self._informer.items.values() if self._family in (None, item.address_type)]
        endpoints = [endpoint for item in slices for endpoint in item.endpoints or ()]
        if self._own:
            return [(found, found) for endpoint in endpoints for found in map(canonical, endpoint.addresses)]
        pods = [(endpoint.addresses, endpoint.target_ref.name) for endpoint in endpoints if endpoint.target_ref]
        return [(canonical(address), pod) for addresses, pod in pods for address in addresses]
