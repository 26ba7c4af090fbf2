"""The objects of a captured Service: a companion that selects the pods, and an EndpointSlice with the proxies. Pure.

The ScaledService owns them, so they end with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from reconciler.kubernetes.config.capture import IPV4, companion_of
from reconciler.kubernetes.types.builtin import (
    CAPTURE_LABEL,
    SERVICE_NAME_LABEL,
    SLICE_MANAGER,
    SLICE_MANAGER_LABEL,
    Endpoint,
    EndpointPort,
    EndpointSlice,
    Service,
    ServicePort,
)
from reconciler.kubernetes.types.objects import OwnerReference
from reconciler.kubernetes.types.scaled_service import API_VERSION, KIND, ScaledService

Body = Mapping[str, Any]
"""An object as it is sent to the API server, without what the API server adds."""
SLICES = ("discovery.k8s.io/v1", "endpointslices")
_LABELS = (CAPTURE_LABEL, SERVICE_NAME_LABEL, SLICE_MANAGER_LABEL)
"""The labels that zenvoy writes; others may add their own."""


def companion(item: ScaledService, service: Service) -> Body:
    """Return the headless Service whose endpoints are the pods of a captured Service."""
    spec = service.spec
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _meta(item, service, companion_of(service.metadata.key).partition("/")[2], {}),
        "spec": {
            "clusterIP": "None",
            "ports": [_port(port) for port in spec.ports],
            "selector": service.pod_selector,
            "publishNotReadyAddresses": spec.publish_not_ready_addresses,
        },
    }


def proxy_slices(item: ScaledService, service: Service, proxies: Iterable[Endpoint], port: int) -> dict[str, Body]:
    """Return the EndpointSlice that leads a Service to the proxies, by name; `port` is the port of the proxies."""
    [first, *_] = service.spec.ports
    labels = {SERVICE_NAME_LABEL: service.metadata.name, SLICE_MANAGER_LABEL: SLICE_MANAGER}
    name = f"{companion_of(service.metadata.key).partition('/')[2]}-ipv4"
    body = {
        "apiVersion": SLICES[0],
        "kind": "EndpointSlice",
        "metadata": _meta(item, service, name, labels),
        "addressType": IPV4,
        "endpoints": [_endpoint(each) for each in proxies],
        "ports": [_slice_port(EndpointPort(first.name, port, first.protocol, first.app_protocol))],
    }
    return {name: body}


def written_companion(service: Service) -> Body:
    """Return what `companion` would have written for this object."""
    spec = service.spec
    meta = service.metadata
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _written_meta(meta.name, meta.labels, meta.owner_references),
        "spec": {
            "clusterIP": spec.cluster_ip,
            "ports": [_port(port) for port in spec.ports],
            "selector": spec.selector,
            "publishNotReadyAddresses": spec.publish_not_ready_addresses,
        },
    }


def written_slice(item: EndpointSlice) -> Body:
    """Return what `proxy_slices` would have written for this object."""
    meta = item.metadata
    return {
        "apiVersion": SLICES[0],
        "kind": "EndpointSlice",
        "metadata": _written_meta(meta.name, meta.labels, meta.owner_references),
        "addressType": item.address_type,
        "endpoints": [_endpoint(each) for each in item.endpoints or ()],
        "ports": [_slice_port(port) for port in item.ports or ()],
    }


def _meta(item: ScaledService, service: Service, name: str, labels: Mapping[str, str]) -> dict[str, Any]:
    owner = OwnerReference(API_VERSION, KIND, item.metadata.name, item.metadata.uid, controller=True)
    return _written_meta(name, {**labels, CAPTURE_LABEL: service.metadata.name}, (owner,))


def _written_meta(name: str, labels: Mapping[str, str], owners: Iterable[OwnerReference]) -> dict[str, Any]:
    own = {key: value for key, value in labels.items() if key in _LABELS}
    return {"name": name, "labels": own, "ownerReferences": [msgspec.to_builtins(owner) for owner in owners]}


def _port(port: ServicePort) -> dict[str, Any]:
    found: dict[str, Any] = {"port": port.port, "protocol": port.protocol, "targetPort": port.target_port or port.port}
    if port.name:
        found["name"] = port.name
    if port.app_protocol:
        found["appProtocol"] = port.app_protocol
    return found


def _slice_port(port: EndpointPort) -> dict[str, Any]:
    found: dict[str, Any] = {"name": port.name, "port": port.port, "protocol": port.protocol}
    return {**found, "appProtocol": port.app_protocol} if port.app_protocol else found


def _endpoint(endpoint: Endpoint) -> dict[str, Any]:
    """Return an endpoint of a proxy.

    The Service of the proxies lists pods before they are ready, so only `serving` shows whether they are.
    """
    conditions = endpoint.conditions
    serving, terminating = conditions.serving is not False, conditions.terminating is True
    found: dict[str, Any] = {
        "addresses": list(endpoint.addresses),
        "conditions": {"ready": serving and not terminating, "serving": serving, "terminating": terminating},
    }
    if endpoint.node_name:
        found["nodeName"] = endpoint.node_name
    if endpoint.zone:
        found["zone"] = endpoint.zone
    return found
