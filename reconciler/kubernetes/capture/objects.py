"""The objects of a captured Service: a companion that selects the pods, and an EndpointSlice with the proxies. Pure.

The ScaledService and the Service own them, so they end with both. With the ScaledService alone, a foreground deletion,
which Argo CD uses by default, would delete them before the Service has its pods back: it waits for no finalizer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from reconciler.kubernetes.config.capture import HEADLESS, IPV4
from reconciler.kubernetes.config.service_config import SERVICE
from reconciler.kubernetes.types.builtin import (
    CAPTURE_LABEL,
    SERVICE_NAME_LABEL,
    SLICE_MANAGER,
    SLICE_MANAGER_LABEL,
    SLICES,
    Endpoint,
    EndpointConditions,
    EndpointPort,
    EndpointSlice,
    Service,
    ServicePort,
)
from reconciler.kubernetes.types.objects import ObjectMeta, OwnerReference, companion_name
from reconciler.kubernetes.types.scaled_service import API_VERSION, KIND, ScaledService

Body = Mapping[str, Any]
"""An object as it is sent to the API server, without what the API server adds."""
_LABELS = (CAPTURE_LABEL, SERVICE_NAME_LABEL, SLICE_MANAGER_LABEL)
"""The labels that zenvoy writes; others may add their own."""


def companion(item: ScaledService, service: Service) -> Body:
    """Return the headless Service whose endpoints are the pods of a captured Service."""
    spec = msgspec.structs.replace(service.spec, cluster_ip=HEADLESS, selector=service.pod_selector)
    name = companion_name(service.metadata.name)
    return written_companion(Service(_meta(item, service, name, {}), spec))


def proxy_slices(item: ScaledService, service: Service, proxies: Iterable[Endpoint], port: int) -> dict[str, Body]:
    """Return the EndpointSlice that leads a Service to the proxies, by name; `port` is the port of the proxies."""
    [first, *_] = service.spec.ports
    labels = {SERVICE_NAME_LABEL: service.metadata.name, SLICE_MANAGER_LABEL: SLICE_MANAGER}
    name = f"{companion_name(service.metadata.name)}-ipv4"
    ports = (EndpointPort(first.name, port, first.protocol, first.app_protocol),)
    return {name: written_slice(EndpointSlice(_meta(item, service, name, labels), IPV4, tuple(proxies), ports))}


def written_companion(service: Service) -> Body:
    """Return the parts of a companion that zenvoy writes."""
    spec = service.spec
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _written_meta(service.metadata),
        "spec": {
            "clusterIP": spec.cluster_ip,
            "ports": [_port(port) for port in spec.ports],
            "selector": spec.selector,
            "publishNotReadyAddresses": spec.publish_not_ready_addresses,
        },
    }


def written_slice(item: EndpointSlice) -> Body:
    """Return the parts of an EndpointSlice of proxies that zenvoy writes."""
    return {
        "apiVersion": SLICES[0],
        "kind": "EndpointSlice",
        "metadata": _written_meta(item.metadata),
        "addressType": item.address_type,
        "endpoints": [_endpoint(each) for each in item.endpoints or ()],
        "ports": [_slice_port(port) for port in item.ports or ()],
    }


def ready_pods(slices: Iterable[EndpointSlice]) -> frozenset[str]:
    """Return the addresses that get connections by EndpointSlices of Kubernetes."""
    endpoints = [endpoint for each in slices for endpoint in each.endpoints or ()]
    ready = [each for each in endpoints if each.conditions.is_ready or each.conditions.serving is True]
    return frozenset(address for each in ready for address in each.addresses[:1])


def _meta(item: ScaledService, service: Service, name: str, labels: Mapping[str, str]) -> ObjectMeta:
    owners = (
        OwnerReference(API_VERSION, KIND, item.metadata.name, item.metadata.uid, controller=True),
        OwnerReference("v1", SERVICE, service.metadata.name, service.metadata.uid),
    )
    return ObjectMeta(name, labels={**labels, CAPTURE_LABEL: service.metadata.name}, owner_references=owners)


def _written_meta(meta: ObjectMeta) -> dict[str, Any]:
    labels = {key: value for key, value in meta.labels.items() if key in _LABELS}
    owners = [msgspec.to_builtins(owner) for owner in meta.owner_references]
    return {"name": meta.name, "labels": labels, "ownerReferences": owners}


def _port(port: ServicePort) -> dict[str, Any]:
    return {**msgspec.to_builtins(port), "protocol": port.protocol, "targetPort": port.target_port or port.port}


def _slice_port(port: EndpointPort) -> dict[str, Any]:
    return {**msgspec.to_builtins(port), "name": port.name, "protocol": port.protocol}


def _endpoint(endpoint: Endpoint) -> dict[str, Any]:
    """Return an endpoint of a proxy.

    The Service of the proxies lists pods before they are ready, so only `serving` shows whether they are.
    """
    conditions = endpoint.conditions
    serving, terminating = conditions.serving is not False, conditions.terminating is True
    written = EndpointConditions(serving and not terminating, serving, terminating)
    builtins = msgspec.to_builtins(msgspec.structs.replace(endpoint, conditions=written, target_ref=None))
    return {**builtins, "addresses": list(endpoint.addresses)}
