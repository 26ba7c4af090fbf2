"""Tests of usage from two samples, and of all causes of unknown usage, which never counts as idle."""

from __future__ import annotations

from itertools import pairwise

import pytest

from reconciler.core.reasons import Reason
from reconciler.core.spec import Protocol, Spec, UsageUnit
from reconciler.core.traffic import Counters, EnvoyReading, Sample, ServiceUsage, Usage, UsageEvidence, Window, evidence

USED = Counters(requests=7, connections=3, bytes=900)


def sample(at: float, missing: dict[str, str] | None = None, **envoys: tuple[float, Counters | None]) -> Sample:
    """Return a sample with the uptime and the counters for `web` of each Envoy (None: never used)."""
    readings = {
        name: EnvoyReading(uptime, {} if counters is None else {"web": counters})
        for name, (uptime, counters) in envoys.items()
    }
    return Sample(at, readings, missing or {})


def judged(
    before: Sample | None, after: Sample, expected: str = "a", by: UsageUnit = UsageUnit.REQUESTS, service: str = "web"
) -> ServiceUsage:
    window = Window(before, after, frozenset(expected.split()))
    return window.judge(service, by, window.unknown())


QUIET_BEFORE = sample(1000, a=(500, USED))


def test_window_quiet_usages_share_one_object() -> None:
    window = Window(QUIET_BEFORE, sample(1005, a=(505, USED)), frozenset({"a"}))
    for by in UsageUnit:
        assert window.judge("web", by, None) is window.judge("never used", by, None)
    assert len({window.judge("web", by, None).reason for by in UsageUnit}) == len(UsageUnit)


def test_window_with_offset_readings_is_not_a_restart() -> None:
    """Prometheus scrapes each Envoy at its own offset and returns all of them together."""

    def scraped(a: float, b: float) -> Sample:
        return Sample(min(a, b), {"a": EnvoyReading(a - 500, {}, a), "b": EnvoyReading(b - 500, {}, b)})

    moments = [(1000.0, 1007.0), (1015.0, 1007.0), (1015.0, 1022.0), (1030.0, 1022.0), (1030.0, 1037.0)]
    for before, after in pairwise(scraped(*one) for one in moments):
        assert judged(before, after, "a b").usage is Usage.QUIET


def test_window_finds_restart_by_time_of_reading() -> None:
    before = Sample(1000, {"a": EnvoyReading(500, {}, 1000), "b": EnvoyReading(500, {}, 1007)})
    after = Sample(1007, {"a": EnvoyReading(515, {}, 1015), "b": EnvoyReading(3, {}, 1007.5)})
    assert judged(before, after, "a b").reason == "Envoy b restarted"


def test_window_without_use_is_quiet() -> None:
    verdict = judged(QUIET_BEFORE, sample(1005, a=(505, USED)))
    assert verdict == ServiceUsage(Usage.QUIET, 1005, 1000, 0, "0 requests moved, 0 in flight", moved=0)


@pytest.mark.parametrize(
    ("by", "idle_changes", "busy_changes"),
    [
        (UsageUnit.REQUESTS, Counters(7, 9, 999, 0, 4), Counters(8, 3, 900)),
        (UsageUnit.CONNECTIONS, Counters(9, 3, 999, 4, 0), Counters(7, 4, 900)),
        (UsageUnit.BYTES, Counters(9, 9, 900, 4, 4), Counters(7, 3, 901)),
    ],
)
def test_window_uses_only_the_configured_counter(by: UsageUnit, idle_changes: Counters, busy_changes: Counters) -> None:
    assert judged(QUIET_BEFORE, sample(1005, a=(505, idle_changes)), by=by).usage is Usage.QUIET
    assert judged(QUIET_BEFORE, sample(1005, a=(505, busy_changes)), by=by).usage is Usage.TRAFFIC


def test_window_with_active_request_is_traffic() -> None:
    verdict = judged(QUIET_BEFORE, sample(1005, a=(505, Counters(7, 3, 900, active_requests=1))))
    assert (verdict.usage, verdict.in_flight) == (Usage.TRAFFIC, 1)


def test_window_open_connection_is_quiet_by_bytes_only() -> None:
    after = sample(1005, a=(505, Counters(7, 3, 900, active_connections=2)))
    assert judged(QUIET_BEFORE, after, by=UsageUnit.CONNECTIONS).in_flight == 2
    assert judged(QUIET_BEFORE, after, by=UsageUnit.BYTES).usage is Usage.QUIET


def test_window_moving_bytes_are_in_flight() -> None:
    verdict = judged(QUIET_BEFORE, sample(1005, a=(505, Counters(7, 3, 1900))), by=UsageUnit.BYTES)
    assert (verdict.usage, verdict.in_flight) == (Usage.TRAFFIC, 1)


def test_window_with_new_counter_is_traffic() -> None:
    assert judged(sample(1000, a=(500, None)), sample(1005, a=(505, USED))).usage is Usage.TRAFFIC


def test_window_unknown_includes_known_new_work() -> None:
    before = sample(1000, a=(500, USED), b=(500, USED))
    after = sample(1005, {"b": "it did not answer"}, a=(505, Counters(8, 4, 950, active_requests=1)))
    verdict = judged(before, after, "a b")
    assert (verdict.usage, verdict.moved, verdict.in_flight, verdict.arrived) == (Usage.UNKNOWN, 1, 1, 2)
    assert verdict.reason == "Envoy b is missing: it did not answer"


def test_window_counts_connection_without_bytes_as_arrived() -> None:
    verdict = judged(sample(1000, a=(500, None)), sample(1005, a=(505, Counters(0, 1, 0, 0, 1))), by=UsageUnit.BYTES)
    assert (verdict.usage, verdict.arrived, verdict.open) == (Usage.QUIET, 1, 1)


def test_window_after_prometheus_failure_has_its_reason() -> None:
    failed = Sample(1003, {}, {"a": "Prometheus: it cannot be reached"}, source_failed=True)
    window = Window(failed, sample(1002, a=(502, USED)), frozenset({"a"}))
    unknown = window.unknown()
    assert unknown
    assert unknown.code is Reason.PROMETHEUS


def test_window_of_unused_service_is_quiet() -> None:
    assert judged(sample(1000, a=(500, None)), sample(1005, a=(505, None))).usage is Usage.QUIET


def test_window_sums_all_envoys() -> None:
    before = sample(1000, a=(500, USED), b=(90, USED))
    verdict = judged(before, sample(1005, a=(505, USED), b=(95, Counters(8, 4, 950, 2, 2))), "a b")
    assert (verdict.usage, verdict.in_flight, verdict.moved) == (Usage.TRAFFIC, 2, 1)


def test_window_ignores_envoy_that_is_not_expected() -> None:
    before = sample(1000, a=(500, USED), b=(90, USED))
    assert judged(before, sample(1005, a=(505, USED)), "a").usage is Usage.QUIET


@pytest.mark.parametrize(
    ("before", "after", "expected", "reason"),
    [
        pytest.param(QUIET_BEFORE, sample(1005), "", "no Envoy is connected", id="no Envoy"),
        pytest.param(None, sample(1005, a=(505, USED)), "a", "only one sample so far", id="first sample"),
        pytest.param(
            QUIET_BEFORE,
            sample(1005, {"b": "timed out"}, a=(505, USED)),
            "a b",
            "Envoy b is missing: timed out",
            id="missing",
        ),
        pytest.param(
            QUIET_BEFORE, sample(1005), "a", "Envoy a is missing: not in the sample", id="missing without an error"
        ),
        pytest.param(
            QUIET_BEFORE,
            sample(1005, a=(505, USED), b=(3, USED)),
            "a b",
            "Envoy b was not in the sample before",
            id="new Envoy",
        ),
        pytest.param(QUIET_BEFORE, sample(1005, a=(2, USED)), "a", "Envoy a restarted", id="restarted"),
        pytest.param(
            sample(1000, a=(1, USED)),
            sample(1010, a=(9, USED)),
            "a",
            "Envoy a has just started: no complete sample yet",
            id="restarted while it was young",
        ),
        pytest.param(
            QUIET_BEFORE,
            sample(1005, a=(505, Counters(6, 3, 900))),
            "a",
            "a counter of Envoy a went backwards",
            id="requests backwards",
        ),
        pytest.param(
            QUIET_BEFORE,
            sample(1005, a=(505, Counters(7, 3, 899))),
            "a",
            "a counter of Envoy a went backwards",
            id="bytes backwards",
        ),
        pytest.param(
            QUIET_BEFORE, sample(1005, a=(505, None)), "a", "a counter of Envoy a went backwards", id="counter gone"
        ),
        pytest.param(
            QUIET_BEFORE,
            sample(1000, a=(500, USED)),
            "a",
            "the sample is older than the one before",
            id="the same sample again",
        ),
        pytest.param(
            QUIET_BEFORE,
            sample(995, a=(495, USED)),
            "a",
            "the sample is older than the one before",
            id="an older sample",
        ),
    ],
)
def test_window_incomplete_is_unknown(before: Sample | None, after: Sample, expected: str, reason: str) -> None:
    verdict = judged(before, after, expected)
    assert (verdict.usage, verdict.reason) == (Usage.UNKNOWN, reason)


def test_window_with_one_unknown_envoy_is_unknown() -> None:
    before = sample(1000, a=(500, USED), b=(500, USED))
    after = sample(1005, a=(505, USED), b=(505, Counters(1, 1, 1)))
    assert judged(before, after, "a b").usage is Usage.UNKNOWN


def test_window_with_nan_is_not_quiet() -> None:
    nan = float("nan")
    for broken in (Counters(requests=nan, connections=3, bytes=900), Counters(7, 3, 900, nan)):  # type: ignore[arg-type]
        assert judged(QUIET_BEFORE, sample(1005, a=(505, broken))).usage is not Usage.QUIET


def test_window_tolerates_whole_second_uptimes() -> None:
    """Two readings 0.5 s apart may show equal uptimes, or uptimes that differ by a second; neither is a restart."""
    assert judged(QUIET_BEFORE, sample(1000.5, a=(500, USED))).usage is Usage.QUIET
    assert judged(QUIET_BEFORE, sample(1000.5, a=(501, USED))).usage is Usage.QUIET
    assert judged(QUIET_BEFORE, sample(1005.9, a=(505, USED))).usage is Usage.QUIET


def test_window_of_a_new_envoy_is_judged_by_its_process() -> None:
    """Two uptimes of 0 prove nothing; the process id does."""

    def of(at: float, process: int) -> Sample:
        return Sample(at, {"a": EnvoyReading(0, {}, process=process)})

    assert judged(of(1000, 7), of(1000.2, 7)).usage is Usage.QUIET
    assert judged(of(1000, 7), of(1000.2, 8)).reason == "Envoy a restarted"
    unknown = judged(of(1000, 0), of(1000.2, 0))
    assert (unknown.usage, unknown.starting) == (Usage.UNKNOWN, True)
    assert unknown.reason == "Envoy a has just started: no complete sample yet"


def test_window_with_restart_clears_with_next_sample() -> None:
    """The counters of the new process are lower, which its restart explains."""

    def of(at: float, process: int, used: int) -> Sample:
        return Sample(at, {"a": EnvoyReading(0, {"web": Counters(requests=used)}, process=process)})

    restarted = judged(of(1000, 7, used=3), of(1000.2, 8, used=0))
    assert (restarted.reason, restarted.starting) == ("Envoy a restarted", True)
    backwards = judged(of(1000, 7, used=3), of(1000.2, 7, used=0))
    assert (backwards.reason, backwards.starting) == ("a counter of Envoy a went backwards", False)


def test_window_finds_restart_behind_slow_reading() -> None:
    """The second reading took 1.9 s, after which the new Envoy has the uptime that the old one had."""
    assert judged(sample(1000, a=(1, USED)), sample(1000.2, a=(1, USED))).usage is Usage.UNKNOWN


def test_evidence_of_complete_sample_sums_all_envoys() -> None:
    readings = {"a": EnvoyReading(9.0, {"web": Counters(3, 2, 0, 1, 2)}), "b": EnvoyReading(9.0, {})}
    found = evidence(Sample(1.0, readings), frozenset(readings), "web")
    assert found == UsageEvidence(uses=5, active_requests=1, active_connections=2)
    assert found.in_flight(Spec(name="web")) == 1
    assert found.in_flight(Spec(name="web", protocol=Protocol.TCP)) == 2


def test_evidence_of_incomplete_sample_is_none() -> None:
    sample = Sample(1.0, {"a": EnvoyReading(9.0, {})})
    assert evidence(sample, frozenset({"a", "b"}), "web") is None
    assert evidence(sample, frozenset(), "web") is None
