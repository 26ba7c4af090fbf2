"""Which of the proxy's pods have ended: those that left the EndpointSlices of a Service of all of them, ready or not.

An Envoy and a holder are named as their pod is. A pod that is ending is in the slices until it has ended, so one that
left them sends nobody anywhere any more; a pod that was deleted by force is believed to have ended, as everywhere in
Kubernetes. Rules: who was never seen there may be about to come; where nobody is left, the Service itself may be gone,
and nothing is known; and one is believed to have left after some seconds only, as endpoints move between slices.
Counterpart: `replicas.py`, which keeps the same of the reconciler.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.client.informer import Informer
from reconciler.kubernetes.types.builtin import SERVICE_NAME_LABEL, EndpointSlice, canonical
from reconciler.kubernetes.types.objects import decoder, name_selector, path

BELIEVED_SECONDS = 5.0
KEPT_SECONDS = 900.0
"""How long it is known of a pod that it ended; longer than anybody asks."""


class ProxyList:
    """Kept up while `run` runs; `ticks` are seconds that nobody can set. `changed` is called when endpoints change."""

    def __init__(
        self,
        api: Api,
        namespace: str,
        service: str,
        ticks: Callable[[], float],
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._informer = Informer(
            api,
            path("discovery.k8s.io/v1", "endpointslices", namespace),
            decoder(EndpointSlice),
            self._changed,
            {"labelSelector": name_selector(SERVICE_NAME_LABEL, service)},
        )
        self._ticks, self._notify = ticks, changed
        self._there: frozenset[str] = frozenset()
        self._pods: dict[str, str] = {}
        self._left: dict[str, float] = {}

    def ended(self, pod: str) -> bool:
        """Whether a pod of that name was there, and is no more."""
        at = self._left.get(pod)
        return at is not None and bool(self._there) and self._ticks() - at >= BELIEVED_SECONDS

    def pods(self) -> Mapping[str, str]:
        """Return the pods by IP address."""
        return self._pods

    @property
    def synced(self) -> bool:
        """Whether the list was seen as a whole."""
        return self._informer.synced

    def run(self) -> Coroutine[Any, Any, None]:
        """Until cancelled."""
        return self._informer.run()

    def _changed(self, _: str, __: EndpointSlice | None) -> None:
        endpoints = [endpoint for item in self._informer.items.values() for endpoint in item.endpoints or ()]
        pods = [(endpoint.addresses, endpoint.target_ref.name) for endpoint in endpoints if endpoint.target_ref]
        self._pods = {canonical(address): pod for addresses, pod in pods for address in addresses}
        there = frozenset(pod for _, pod in pods)
        now, gone = self._ticks(), self._there - there
        left = self._left | dict.fromkeys(gone, now)
        self._left = {pod: at for pod, at in left.items() if pod not in there and now - at < KEPT_SECONDS}
        self._there = there
        self._notify()
