"""Resource requests of pods, from a workload's template."""

from __future__ import annotations

import json
from typing import Any

import pytest

from reconciler.kubernetes.types.resource_requests import parse_quantity
from reconciler.kubernetes.workloads.target_informers import decode_builtin
from reconciler.ports.backend import UNKNOWN_REQUESTS, ResourceRequests


@pytest.mark.parametrize(
    ("said", "number"),
    [
        ("1", 1),
        (2, 2),
        ("0.5", 0.5),
        (".5", 0.5),
        ("5.", 5),
        ("100m", 0.1),
        ("250u", 0.00025),
        ("10n", 1e-8),
        ("1k", 1000),
        ("128Mi", 128 * 1024**2),
        ("1.5Gi", 1.5 * 1024**3),
        ("2Ei", 2 * 1024**6),
        ("3E", 3e18),
        ("1e3", 1000),
        ("1E-3", 0.001),
    ],
)
def test_parse_quantity_valid_returns_number(said: str | int, number: float) -> None:
    assert parse_quantity(said) == pytest.approx(number)


@pytest.mark.parametrize("said", ["", "much", "1 Gi", "m", ".", "1KiB", "1ki"])
def test_parse_quantity_invalid_returns_none(said: str) -> None:
    assert parse_quantity(said) is None


def read(**spec: Any) -> ResourceRequests:
    return decode_builtin(json.dumps({"metadata": {"name": "web"}, "spec": {"template": {"spec": spec}}}).encode()).asks


def container(restart_policy: str | None = None, **resources: Any) -> dict[str, Any]:
    return {"name": "a", "resources": resources, **({"restartPolicy": restart_policy} if restart_policy else {})}


def test_requests_of_containers_are_summed() -> None:
    one = container(requests={"cpu": "250m", "memory": "128Mi"})
    other = container(requests={"cpu": 1}, limits={"cpu": 4, "memory": "1Mi"})
    assert read(containers=[one, other]) == ResourceRequests(1.25, 129 * 1024**2)


def test_requests_of_sidecars_count_init_containers_do_not() -> None:
    init = [container(requests={"cpu": 8}), container("Always", requests={"cpu": 2})]
    assert read(containers=[container(requests={"cpu": 1})], initContainers=init) == ResourceRequests(3, None)


def test_requests_of_nothing_are_unknown() -> None:
    assert read(containers=[container(), {"name": "b"}]) is UNKNOWN_REQUESTS
    assert read(containers=None) is UNKNOWN_REQUESTS
    assert read(containers=[container(requests={"cpu": "much"})]) is UNKNOWN_REQUESTS
    assert decode_builtin(b'{"metadata": {"name": "web"}, "spec": {"replicas": 2}}').asks is UNKNOWN_REQUESTS
