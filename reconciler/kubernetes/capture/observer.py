"""Observation of captured Services: what exists, and what should exist for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from reconciler.kubernetes.capture import objects
from reconciler.kubernetes.capture.plan import CaptureObjects, RequiredObjects
from reconciler.kubernetes.capture.requests import read_service, read_slices
from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.client.informer import Informer
from reconciler.kubernetes.client.pod_list import endpoint_slices
from reconciler.kubernetes.config.capture import IPV4, Capture, capture_of, companion_of
from reconciler.kubernetes.config.provider import KubernetesProvider
from reconciler.kubernetes.config.resolve import SPEC, service_of
from reconciler.kubernetes.types.builtin import CAPTURE_LABEL, SERVICE_NAME_LABEL, Endpoint, EndpointSlice, Service
from reconciler.kubernetes.types.objects import name_selector
from reconciler.kubernetes.types.scaled_service import ScaledService
from reconciler.kubernetes.workloads.endpoints import EndpointSlices


@dataclass(frozen=True, slots=True)
class CaptureSources:
    """The objects of informers, and the settings, that a capture depends on."""

    provider: KubernetesProvider
    slices: EndpointSlices
    proxies: tuple[str, str] | None
    """Namespace and name of the headless Service of the proxies; None: there are none, or no Service is captured."""
    ports: range
    """Ports of the proxies for captured Services; empty: none is captured, and captured ones are released."""


class CaptureObserver:
    """The state of Services, by key; `changed` is called when the proxies change."""

    def __init__(self, api: Api, sources: CaptureSources, changed: Callable[[], None]) -> None:
        self._api, self._sources = api, sources
        self._services, self._scaled = sources.provider.services.items, sources.provider.scaled_services.items
        self._proxies: Informer[EndpointSlice] | None = None
        if sources.proxies:
            namespace, name = sources.proxies
            selector = name_selector(SERVICE_NAME_LABEL, name)
            self._proxies = endpoint_slices(api, namespace, lambda _, __: changed(), selector)

    @property
    def synced(self) -> bool:
        """True once everything was received completely."""
        proxies = self._proxies is None or self._proxies.synced
        return self._sources.provider.synced and self._sources.slices.synced and proxies

    async def run(self) -> None:
        """Watch the proxies until cancelled."""
        if self._proxies:
            await self._proxies.run()

    def capture(self, item: ScaledService) -> Capture:
        """Return whether the Service of a ScaledService is to be captured."""
        return capture_of(item, self._services.get(service_of(item)), self._sources.ports, SPEC)

    def owner(self, key: str) -> ScaledService | None:
        """Return the ScaledService for which a Service is captured: the oldest one that wants it."""
        items = [item for name in self._sources.provider.users(key) if (item := self._scaled.get(name))]
        wanting = [item for item in items if self.capture(item).is_due and not item.metadata.deletion_timestamp]
        return min(wanting, key=_age, default=None)

    def observe(self, service: Service) -> CaptureObjects:
        """Return what exists for a Service."""
        return self._observed(service, self._sources.slices.slices(service.metadata.key))

    async def read(self, key: str) -> tuple[Service, CaptureObjects] | None:
        """Return a Service and what exists for it, from the API server; None if it is gone."""
        labels = SERVICE_NAME_LABEL, CAPTURE_LABEL
        slices = [each for label in labels for each in await read_slices(self._api, key, label)]
        service = await read_service(self._api, key)
        return (service, self._observed(service, slices)) if service else None

    def _observed(self, service: Service, slices: Iterable[EndpointSlice]) -> CaptureObjects:
        slices = [each for each in slices if each.service == service.metadata.key]
        own = {each.metadata.name: objects.written_slice(each) for each in slices if each.has_proxies}
        companion = self.companion(service.metadata.key)
        return CaptureObjects(
            is_hidden=service.is_captured,
            pods=objects.ready_pods([each for each in slices if not (each.has_proxies or each.is_companion)]),
            companion_pods=objects.ready_pods([each for each in slices if each.is_companion]),
            companion=objects.written_companion(companion) if companion else None,
            slices=own or None,
        )

    def required(self, owner: ScaledService, service: Service, port: int) -> RequiredObjects:
        """Return what should exist for a captured Service."""
        slices = objects.proxy_slices(owner, service, self._proxy_endpoints(), port)
        ready = any(each["conditions"]["ready"] for body in slices.values() for each in body["endpoints"])
        return RequiredObjects(objects.companion(owner, service), slices, ready)

    def companion(self, key: str) -> Service | None:
        """Return the companion of a Service, if zenvoy created it."""
        found = self._services.get(companion_of(key))
        return found if found and found.captured == key else None

    def proxy_slices(self, key: str) -> list[EndpointSlice]:
        """Return the EndpointSlices of the proxies."""
        return [each for each in self._sources.slices.slices(key) if each.has_proxies]

    def _proxy_endpoints(self) -> list[Endpoint]:
        items = self._proxies.items.values() if self._proxies else ()
        slices = [item for item in items if item.address_type == IPV4]
        found = {endpoint.addresses: endpoint for item in slices for endpoint in item.endpoints or ()}
        return [found[addresses] for addresses in sorted(found)]


def _age(item: ScaledService) -> tuple[float, str]:
    created = item.metadata.creation_timestamp
    return created.timestamp() if created else 0.0, item.metadata.key
