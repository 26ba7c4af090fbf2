"""Findings about pods of Services whose ScaledService is asleep."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from reconciler.doctor.cluster_checks import find_pods_asleep
from reconciler.doctor.findings import FindingCode
from reconciler.kubernetes.types.builtin import (
    CAPTURE_LABEL,
    SERVICE_NAME_LABEL,
    SLICE_MANAGER,
    SLICE_MANAGER_LABEL,
    Endpoint,
    EndpointConditions,
    EndpointSlice,
)
from reconciler.kubernetes.types.objects import ObjectMeta, ObjectRef, companion_name
from reconciler.kubernetes.types.scaled_service import ScaledService, ScaledServiceStatus

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
COMPANION = {SERVICE_NAME_LABEL: companion_name("web"), CAPTURE_LABEL: "web"}


def item(state: str = "ScaledToZero", zeroed: bool = True, age: float = 61.0) -> ScaledService:
    since = NOW - timedelta(seconds=age)
    return ScaledService(ObjectMeta("web", "shop"), status=ScaledServiceStatus(state=state, since=since, zeroed=zeroed))


def listed(labels: dict[str, str] | None = None, **conditions: bool) -> EndpointSlice:
    meta = ObjectMeta("web-1", "shop", labels=labels or {SERVICE_NAME_LABEL: "web"})
    pod = ObjectRef(kind="Pod", name="canary-1")
    return EndpointSlice(meta, "IPv4", (Endpoint(("10.0.0.1",), EndpointConditions(**conditions), pod),))


@pytest.mark.parametrize("labels", [None, COMPANION])
def test_ready_pod_of_a_sleeping_service_is_a_problem(labels: dict[str, str] | None) -> None:
    (finding,) = find_pods_asleep([item()], [listed(labels, ready=True)], NOW)
    assert (finding.code, finding.place) == (FindingCode.PODS_WHILE_ASLEEP, "ScaledService shop/web")
    assert "canary-1" in finding.message and "Deployment shop/web" in finding.message


@pytest.mark.parametrize(
    ("scaled", "found"),
    [
        (item("Active"), listed(ready=True)),
        (item(zeroed=False), listed(ready=True)),
        (item(age=5.0), listed(ready=True)),
        (item(), listed(ready=False)),
        (item(), listed(ready=True, terminating=True)),
        (item(), listed({SERVICE_NAME_LABEL: "api"}, ready=True)),
        (item(), listed({SERVICE_NAME_LABEL: "web", SLICE_MANAGER_LABEL: SLICE_MANAGER}, ready=True)),
    ],
)
def test_other_pods_are_no_finding(scaled: ScaledService, found: EndpointSlice) -> None:
    assert not [*find_pods_asleep([scaled], [found], NOW)]
