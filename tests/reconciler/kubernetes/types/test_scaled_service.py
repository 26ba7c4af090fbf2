"""Objects as an API server writes them: what is left out, what is null, and what comes back from what we write."""

from __future__ import annotations

import msgspec
import pytest

from reconciler.kubernetes.types.builtin import EndpointSlice, Pod, Scale, Service
from reconciler.kubernetes.types.objects import Condition, ObjectMeta, decoder, micro_time, path
from reconciler.kubernetes.types.scaled_service import ScaledService, ScaledServiceStatus, TargetRef


def test_endpoint_slice_null_endpoints_decodes() -> None:
    text = b"""{"metadata": {"name": "web-x", "namespace": "shop", "creationTimestamp": null,
        "labels": {"kubernetes.io/service-name": "web"}}, "addressType": "IPv4", "endpoints": null, "ports": null}"""
    read = decoder(EndpointSlice)(text)
    assert (read.endpoints, read.ports, read.service) == (None, None, "shop/web")


def test_endpoint_conditions_missing_are_unknown() -> None:
    text = b'{"endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"serving": false}}], "ports": [{"port": 80}]}'
    endpoints = decoder(EndpointSlice)(text).endpoints
    assert endpoints
    conditions = endpoints[0].conditions
    assert (conditions.ready, conditions.serving, conditions.terminating) == (None, False, None)


def test_scale_without_replicas_is_zero() -> None:
    assert decoder(Scale)(b'{"metadata": {"name": "web"}, "spec": {}, "status": {"replicas": 0}}').spec.replicas == 0


def test_decoder_acronyms_keep_case() -> None:
    assert decoder(Pod)(b'{"status": {"podIP": "10.0.0.1"}}').status.pod_ip == "10.0.0.1"
    assert decoder(Service)(b'{"spec": {"clusterIP": "None"}}').spec.cluster_ip == "None"


def test_port_name_or_number_decodes() -> None:
    ports = decoder(Service)(
        b'{"spec": {"ports": [{"port": 80, "targetPort": "web"}, {"port": 81, "targetPort": 8081}]}}'
    )
    assert [port.target_port for port in ports.spec.ports] == ["web", 8081]


def test_meta_key_joins_namespace_and_name() -> None:
    assert ObjectMeta(name="web", namespace="shop").key == "shop/web"
    assert ObjectMeta(name="node-1").key == "node-1"


def test_spec_encoding_omits_defaults() -> None:
    status = ScaledServiceStatus(state="Active", conditions=(Condition("Ready", "True", "Running"),))
    assert msgspec.to_builtins(status) == {
        "state": "Active",
        "conditions": ({"type": "Ready", "status": "True", "reason": "Running"},),
    }


def test_spec_encoding_round_trips() -> None:
    text = b"""{"metadata": {"name": "web", "creationTimestamp": "2026-11-23T10:00:00Z"}, "spec": {"scaleTargetRef":
        {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "replicas": "last", "idleAfter": "5m"},
        "status": {"holdAddress": "127.64.0.7:18001", "observedCommand": "wake@x"}}"""
    read = decoder(ScaledService)(text)
    assert read.spec.scale_target_ref == TargetRef("apps/v1", "Deployment", "web")
    assert decoder(ScaledService)(msgspec.json.encode(read)) == read


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("v1", "pods"), "/api/v1/pods"),
        (("v1", "services", "shop", "web"), "/api/v1/namespaces/shop/services/web"),
        (("apps/v1", "deployments", "shop", "web", "scale"), "/apis/apps/v1/namespaces/shop/deployments/web/scale"),
    ],
)
def test_path_parts_are_joined(arguments: tuple[str, ...], expected: str) -> None:
    assert path(*arguments) == expected


@pytest.mark.parametrize("seconds", [1.0, 1.5, 1700000000.123456])
def test_micro_time_has_six_decimals(seconds: float) -> None:
    assert len(micro_time(seconds)) == len("2026-11-23T10:00:00.000000Z")
