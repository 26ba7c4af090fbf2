"""Which autoscalers fight over zero; the rest of what doctor finds is tried on a real API server."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from reconciler.doctor.conflicts import Autoscaler, of_autoscalers
from reconciler.doctor.findings import Level
from reconciler.kubernetes.types.objects import ObjectMeta
from reconciler.kubernetes.types.scaled_service import ScaledService

WEB = ScaledService(ObjectMeta("web", "shop"))


def autoscaler(target: str, namespace: str = "shop", **spec: Any) -> Autoscaler:
    ref = {"apiVersion": "apps/v1", "kind": "Deployment", "name": target}
    whole = {"metadata": {"name": "hpa", "namespace": namespace}, "spec": {"scaleTargetRef": ref, **spec}}
    return msgspec.convert(whole, Autoscaler)


def test_one_that_is_active_at_zero_replicas() -> None:
    (finding,) = of_autoscalers([WEB], [autoscaler("web", minReplicas=0)])
    assert finding.where == "HorizontalPodAutoscaler shop/hpa"
    assert "shop/web" in finding.what and "minReplicas: 1" in finding.remedy


@pytest.mark.parametrize(("one", "least"), [(autoscaler("web"), 1), (autoscaler("web", minReplicas=4), 4)])
def test_one_that_rests_at_zero_is_a_note(one: Autoscaler, least: int) -> None:
    (finding,) = of_autoscalers([WEB], [one])
    assert finding.level is Level.NOTE
    assert f"rests while the target of shop/web sleeps, and raises it to {least} or more" in finding.what


@pytest.mark.parametrize(
    "other",
    [
        autoscaler("db"),
        autoscaler("db", minReplicas=0),
        autoscaler("web", "elsewhere", minReplicas=0),
    ],
)
def test_others_do_not(other: Autoscaler) -> None:
    assert not [*of_autoscalers([WEB], [other])]
