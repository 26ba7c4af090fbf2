"""Each code of unknown usage, from the source that reports it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.core.reasons import UNKNOWN_REASONS, Reason, Unknown
from reconciler.core.traffic import NO_SAMPLE, EnvoyReading, Sample, Window
from reconciler.envoy.prometheus.settings import PrometheusSettings
from reconciler.envoy.prometheus.stats import PrometheusStats
from reconciler.ports.clock import Clock
from reconciler.replication.fleet import FleetLedger, ReplicaContext
from reconciler.replication.messages import Fleet
from reconciler.replication.replication import Replication
from tests.fakes.member_list import MemberList

EDGE = frozenset({"edge"})
ROOT = Path(__file__).parents[3]


def sample(at: float, *, uptime: float = 1000.0, missing: str | None = None) -> Sample:
    return Sample(at, {}, {"edge": missing}) if missing else Sample(at, {"edge": EnvoyReading(uptime + at, {})})


def terms(*listed: str, settle: float = 0.0) -> ReplicaContext:
    return ReplicaContext(
        "one", MemberList(listed), lambda: True, Clock(lambda: 0.0, lambda: 100.0), settle, return_seconds=0.0
    )


def of_replicas(*listed: str, settle: float = 0.0) -> Unknown | None:
    return FleetLedger(terms(*listed, settle=settle), 100.0, Fleet()).unknown()


async def of_prometheus() -> Unknown | None:
    nowhere = PrometheusSettings("http://127.0.0.1:1", 1.0, timeout=5.0)
    source = PrometheusStats(nowhere, lambda: 2.0, lambda: EDGE)
    return Window(sample(1.0), await source.sample(), EDGE).unknown()


UTTERED: dict[Reason, Callable[[], Unknown | None]] = {
    Reason.NO_ENVOY: Window(None, sample(1.0), frozenset()).unknown,
    Reason.FIRST_SAMPLE: Window(None, sample(1.0), EDGE).unknown,
    Reason.SAMPLE_NOT_NEWER: Window(sample(2.0), sample(1.0), EDGE).unknown,
    Reason.ENVOY_MISSING: Window(
        sample(1.0), sample(2.0, missing="Prometheus has no recent scrape of it"), EDGE
    ).unknown,
    Reason.ENVOY_AWAY: Window(sample(1.0), sample(2.0, missing="its admin port: refused"), EDGE, EDGE).unknown,
    Reason.ENVOY_NEW: Window(sample(1.0, missing="x"), sample(2.0), EDGE).unknown,
    Reason.ENVOY_RESTARTED: Window(sample(1.0), sample(2.0, uptime=-1.9), EDGE).unknown,
    Reason.LEADER_NEW: lambda: of_replicas("one", settle=15.0),
    Reason.REPLICAS_UNKNOWN: lambda: of_replicas("two"),
    Reason.REPLICA_MISSING: lambda: of_replicas("one", "two"),
    Reason.NOT_LEADER: Replication(terms("one")).unknown,
}
"""`PROMETHEUS` has a test of its own, which needs a request."""


@pytest.mark.parametrize("cause", UTTERED)
def test_unknown_usage_has_its_code(cause: Reason) -> None:
    unknown = UTTERED[cause]()

    assert unknown
    assert unknown.code is cause


async def test_unknown_usage_prometheus_down_names_no_envoy() -> None:
    unknown = await of_prometheus()

    assert unknown == Unknown(Reason.PROMETHEUS, "Envoy edge is missing: Prometheus: it cannot be reached")


def test_usage_disconnected_envoy_that_answers_is_known() -> None:
    assert Window(sample(1.0), sample(2.0), EDGE, EDGE).unknown() is None


def test_usage_before_first_sample_is_unknown() -> None:
    assert NO_SAMPLE.code is Reason.FIRST_SAMPLE


def test_unknown_codes_are_all_used_and_documented() -> None:
    page = (ROOT / "docs/runbooks/TrafficUnknown.md").read_text()

    assert {*UTTERED, Reason.PROMETHEUS} == set(UNKNOWN_REASONS)
    assert [cause for cause in UNKNOWN_REASONS if f"`{cause}`" not in page] == []
