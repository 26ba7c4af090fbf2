"""The probes of a pod that zenvoy runs, and the results that make the pod ready."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import yaml

from reconciler.kubernetes.types.builtin import Pod
from reconciler.kubernetes.types.objects import decoder
from reconciler.kubernetes.workloads.probes.checks import (
    MAX_REQUEST_LENGTH,
    ContainerChecks,
    GrpcCheck,
    HttpCheck,
    TcpCheck,
    pod_checks,
)

IP = "10.0.0.7"
LONG = "a" * MAX_REQUEST_LENGTH
PORTS = "ports: [{name: admin, containerPort: 9000}, {name: http, containerPort: 8080}]"
RUNS: dict[str, Any] = {"state": {"running": {"startedAt": "2026-11-23T10:00:00Z"}}}


def pod(*containers: str, spec: str = "{}", statuses: dict[str, Any] | None = None, **meta: Any) -> Pod:
    """Return a pod whose containers are YAML; all of them run, except for what `statuses` say by name."""
    made = [yaml.safe_load(f"{{name: c{at}, {one}}}") for at, one in enumerate(containers)]
    whole = {"containers": made, **yaml.safe_load(spec)}
    names = [one["name"] for one in (*made, *whole.get("initContainers", ()))]
    seen = [{"name": name, **RUNS, **(statuses or {}).get(name, {})} for name in names]
    status = {"podIP": IP, "containerStatuses": seen[: len(made)], "initContainerStatuses": seen[len(made) :]}
    return decoder(Pod)(msgspec.json.encode({"metadata": meta, "spec": whole, "status": status}))


def checks(*containers: str, **more: Any) -> tuple[ContainerChecks, ...] | None:
    found = pod_checks(pod(*containers, **more))
    assert found is None or found.ip == IP
    return found.containers if found else None


@pytest.mark.parametrize(
    ("probe", "check"),
    [
        ("httpGet: {port: 8080}", HttpCheck(8080, 1.0, "", (), False)),
        (
            "httpGet: {path: '/ready?full=1', port: http, scheme: HTTPS, "
            "httpHeaders: [{name: Host, value: a.example}, {name: X, value: y}]}, timeoutSeconds: 5",
            HttpCheck(8080, 5.0, "/ready?full=1", (("Host", "a.example"), ("X", "y")), True),
        ),
        ("tcpSocket: {port: admin}, timeoutSeconds: 2", TcpCheck(9000, 2.0)),
        ("grpc: {port: 50051}", GrpcCheck(50051, 1.0, "")),
        ("grpc: {port: 50051, service: shop.Cart}", GrpcCheck(50051, 1.0, "shop.Cart")),
    ],
)
def test_checks_are_as_written(probe: str, check: Any) -> None:
    assert checks(f"{PORTS}, readinessProbe: {{{probe}, successThreshold: 3}}") == (ContainerChecks(None, check, 3),)
    assert checks(f"{PORTS}, startupProbe: {{{probe}}}") == (ContainerChecks(check, None, 1),)


@pytest.mark.parametrize(
    "probe",
    [
        "exec: {command: [ready]}",
        "httpGet: {port: 8080, host: 169.254.169.254}",
        "httpGet: {port: 8080, scheme: FTP}",
        "httpGet: {port: other}",
        "httpGet: {port: 65536}",
        "tcpSocket: {port: 5432, host: db.example.com}",
        "tcpSocket: {port: 0}",
        "grpc: {port: 0}",
        f"httpGet: {{port: 8080, path: /{LONG}}}",
        f"httpGet: {{port: 8080, httpHeaders: [{{name: X, value: {LONG}}}]}}",
        f"grpc: {{port: 50051, service: {LONG}a}}",
    ],
    ids=lambda probe: probe[:40],
)
def test_checks_of_other_probes_are_left_to_kubernetes(probe: str) -> None:
    assert checks(f"{PORTS}, readinessProbe: {{{probe}}}") is None
    assert checks(f"{PORTS}, startupProbe: {{{probe}}}") is None
    assert checks("readinessProbe: {tcpSocket: {port: 1}}", f"{PORTS}, readinessProbe: {{{probe}}}") is None


@pytest.mark.parametrize(
    "spec", ["hostNetwork: true", "readinessGates: [{conditionType: target-health.example.com/web}]"]
)
def test_checks_of_special_pods_are_left_to_kubernetes(spec: str) -> None:
    assert checks("", spec=f"{{{spec}}}") is None


def test_checks_need_running_containers() -> None:
    waiting = {"state": {"waiting": {"reason": "ContainerCreating"}}}
    assert checks("", "") == (ContainerChecks(None, None, 1),) * 2
    assert checks("", "", statuses={"c1": waiting}) is None
    assert checks() is None
    assert checks("", deletionTimestamp="2026-11-23T10:00:00Z") is None


def test_checks_include_sidecars_only() -> None:
    sidecar = "{name: proxy, restartPolicy: Always, readinessProbe: {tcpSocket: {port: 15021}}}"
    spec = f"{{initContainers: [{{name: migrate}}, {sidecar}]}}"
    ended = {"state": {"terminated": {"exitCode": 0}}}
    first = ContainerChecks(None, TcpCheck(15021, 1.0), 1)
    assert checks("", spec=spec, statuses={"migrate": ended}) == (first, ContainerChecks(None, None, 1))
    assert checks("", spec=spec, statuses={"migrate": ended, "proxy": ended}) is None


def test_checks_that_kubernetes_passed_are_skipped() -> None:
    both = "startupProbe: {tcpSocket: {port: 1}}, readinessProbe: {tcpSocket: {port: 2}}"
    assert checks(both, statuses={"c0": {"started": True}}) == (ContainerChecks(None, TcpCheck(2, 1.0), 1),)
    runs = "readinessProbe: {exec: {command: [ready]}}"
    assert checks(runs, statuses={"c0": {"ready": True}}) == (ContainerChecks(None, None, 1),)


FIRST, THEN = TcpCheck(1, 1.0), TcpCheck(2, 1.0)


def test_container_without_probe_is_ready() -> None:
    made = ContainerChecks(None, None, 1)
    assert made.is_ready
    assert made.due is None


def test_container_readiness_follows_startup() -> None:
    made = ContainerChecks(FIRST, THEN, 1)
    assert made.due == FIRST
    made.record(False)
    assert made.due == FIRST
    made.record(True)
    before = made.is_ready
    assert made.due == THEN
    made.record(True)
    assert (before, made.is_ready) == (False, True)


def test_container_with_startup_probe_only_is_ready_after_it() -> None:
    made = ContainerChecks(FIRST, None, 1)
    before = made.is_ready
    made.record(True)
    assert (before, made.is_ready) == (False, True)
    assert made.due is None


def test_container_successes_are_in_a_row() -> None:
    made = ContainerChecks(None, THEN, 2)
    for passed, ready in ((True, False), (False, False), (True, False), (True, True), (True, True), (False, False)):
        made.record(passed)
        assert made.is_ready is ready
