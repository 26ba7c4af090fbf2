"""The proxy's pods and those that have ended, from the EndpointSlices of a Service that selects all of them.

An Envoy and a holder have the name of their pod. A terminating pod stays in the slices until it has ended, so a pod
that left them forwards no traffic any more. A pod that was deleted by force counts as ended, as everywhere in
Kubernetes. A pod that was never in the slices may still be starting. If no pod is left, the Service itself may be gone,
and nothing is known. A pod counts as gone only after some seconds, because endpoints move between slices.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.client.informer import Informer
from reconciler.kubernetes.types.builtin import SERVICE_NAME_LABEL, EndpointSlice, canonical
from reconciler.kubernetes.types.objects import decoder, name_selector, path

CONFIRM_AFTER_SECONDS = 5.0
REMEMBER_ENDED_SECONDS = 900.0
"""An ended pod is remembered this long, which is longer than anything depends on it."""


class ProxyList:
    """The proxy's pods, current while `run` is running.

    `ticks` is a monotonic clock in seconds. `changed` is called when endpoints change.
    """

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
        """Return whether the pod was in the slices and has left them."""
        at = self._left.get(pod)
        return at is not None and bool(self._there) and self._ticks() - at >= CONFIRM_AFTER_SECONDS

    def pods(self) -> Mapping[str, str]:
        """Return the names of the pods by IP address."""
        return self._pods

    @property
    def synced(self) -> bool:
        """True once the list was received completely."""
        return self._informer.synced

    def run(self) -> Coroutine[Any, Any, None]:
        """Watch until cancelled."""
        return self._informer.run()

    def _changed(self, _: str, __: EndpointSlice | None) -> None:
        endpoints = [endpoint for item in self._informer.items.values() for endpoint in item.endpoints or ()]
        pods = [(endpoint.addresses, endpoint.target_ref.name) for endpoint in endpoints if endpoint.target_ref]
        self._pods = {canonical(address): pod for addresses, pod in pods for address in addresses}
        there = frozenset(pod for _, pod in pods)
        now, gone = self._ticks(), self._there - there
        left = self._left | dict.fromkeys(gone, now)
        self._left = {pod: at for pod, at in left.items() if pod not in there and now - at < REMEMBER_ENDED_SECONDS}
        self._there = there
        self._notify()
