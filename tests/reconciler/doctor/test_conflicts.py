"""Findings about autoscalers; the other conflicts are tested on a real API server."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from reconciler.doctor.conflicts import Autoscaler, check_autoscalers
from reconciler.doctor.findings import FindingCode, Severity
from reconciler.kubernetes.types.objects import ObjectMeta
from reconciler.kubernetes.types.scaled_service import ScaledService

WEB = ScaledService(ObjectMeta("web", "shop"))


def autoscaler(target: str, namespace: str = "shop", **spec: Any) -> Autoscaler:
    """Return an autoscaler of a Deployment."""
    ref = {"apiVersion": "apps/v1", "kind": "Deployment", "name": target}
    whole = {"metadata": {"name": "hpa", "namespace": namespace}, "spec": {"scaleTargetRef": ref, **spec}}
    return msgspec.convert(whole, Autoscaler)


def test_autoscaler_minimum_zero_is_a_problem() -> None:
    (finding,) = check_autoscalers([WEB], [autoscaler("web", minReplicas=0)])
    assert (finding.code, finding.severity) == (FindingCode.AUTOSCALER_SCALES_TO_ZERO, Severity.PROBLEM)
    assert finding.place == "HorizontalPodAutoscaler shop/hpa"
    assert "shop/web" in finding.message and "minReplicas: 1" in finding.remedy


@pytest.mark.parametrize(("one", "minimum"), [(autoscaler("web"), 1), (autoscaler("web", minReplicas=4), 4)])
def test_autoscaler_minimum_above_zero_is_a_note(one: Autoscaler, minimum: int) -> None:
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
def test_autoscaler_of_other_target_is_no_finding(other: Autoscaler) -> None:
    assert not [*check_autoscalers([WEB], [other])]
