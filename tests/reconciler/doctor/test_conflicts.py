"""Findings about autoscalers; the other conflicts are tested on a real API server."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from reconciler.doctor.conflicts import ManagedTarget, Scaler, check_autoscalers, check_targets
from reconciler.doctor.findings import FindingCode, Severity
from reconciler.kubernetes.types.objects import ObjectMeta, Target
from reconciler.kubernetes.types.scaled_service import ScaledService, ScaledServiceSpec, TargetRef

WEB = ScaledService(ObjectMeta("web", "shop"))


def autoscaler(target: str, namespace: str = "shop", **spec: Any) -> Scaler:
    """Return an autoscaler of a Deployment."""
    ref = {"apiVersion": "apps/v1", "kind": "Deployment", "name": target}
    whole = {"metadata": {"name": "hpa", "namespace": namespace}, "spec": {"scaleTargetRef": ref, **spec}}
    return msgspec.convert(whole, Scaler)


def test_autoscaler_minimum_zero_is_a_problem() -> None:
    (finding,) = check_autoscalers([WEB], [autoscaler("web", minReplicas=0)])
    assert (finding.code, finding.severity) == (FindingCode.AUTOSCALER_SCALES_TO_ZERO, Severity.PROBLEM)
    assert finding.place == "HorizontalPodAutoscaler shop/hpa"
    assert "shop/web" in finding.message and "minReplicas: 1" in finding.remedy


@pytest.mark.parametrize(("one", "minimum"), [(autoscaler("web"), 1), (autoscaler("web", minReplicas=4), 4)])
def test_autoscaler_minimum_above_zero_is_a_note(one: Scaler, minimum: int) -> None:
    (finding,) = check_autoscalers([WEB], [one])
    assert (finding.code, finding.severity) == (FindingCode.AUTOSCALER_RAISES_REPLICAS, Severity.NOTE)
    assert "shop/web" in finding.message and f"raises it to {minimum} or more" in finding.message


@pytest.mark.parametrize(
    "other",
    [
        autoscaler("db"),
        autoscaler("db", minReplicas=0),
        autoscaler("web", "elsewhere", minReplicas=0),
    ],
)
def test_autoscaler_of_other_target_is_no_finding(other: Scaler) -> None:
    assert not [*check_autoscalers([WEB], [other])]


def target(kind: str, spec: dict[str, Any] | None = None, owner: str = "") -> tuple[ScaledService, ManagedTarget]:
    """Return a ScaledService, and its target of this kind."""
    owners = [{"apiVersion": "v1", "kind": owner, "name": "main", "uid": "1", "controller": True}] if owner else []
    whole = {"metadata": {"name": "web", "namespace": "shop", "ownerReferences": owners}, "spec": spec or {}}
    item = ScaledService(WEB.metadata, ScaledServiceSpec(scale_target_ref=TargetRef("apps/v1", kind, "web")))
    return item, msgspec.convert(whole, ManagedTarget)


def findings(item: ScaledService, found: ManagedTarget) -> list[tuple[str, str]]:
    place = Target("apps/v1", item.spec.scale_target_ref.kind, "web", "shop")
    return [(one.code, one.severity) for one in check_targets({place: found})]


def test_target_whose_volumes_a_sleep_deletes_is_a_problem() -> None:
    policy = {"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete", "whenDeleted": "Retain"}}
    assert findings(*target("StatefulSet", policy)) == [(FindingCode.VOLUMES_DELETED, Severity.PROBLEM)]
    assert not findings(*target("StatefulSet", {"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Retain"}}))


def test_target_that_another_object_controls_is_reported() -> None:
    assert findings(*target("ReplicaSet", owner="Deployment")) == [(FindingCode.REPLICAS_CONTROLLED, Severity.PROBLEM)]
    assert findings(*target("Deployment", owner="Revision")) == [(FindingCode.REPLICAS_CONTROLLED, Severity.NOTE)]
    assert not findings(*target("Deployment"))
