"""Tests of counts of use from samples of Envoys that join, leave and restart."""

from __future__ import annotations

from reconciler.core.traffic import Counters, EnvoyReading, Sample
from reconciler.engine.sampling import RequestCounter

SINCE = 1000.0


def sample(at: float, began: float, requests: int, active: int = 0) -> Sample:
    """Return a sample of one Envoy that started at `began`."""
    counted = {"web": Counters(requests=requests, active_requests=active)}
    return Sample(at, {"envoy": EnvoyReading(at - began, counted)})


def missing(at: float) -> Sample:
    return Sample(at, {}, {"envoy": "it did not answer"})


def test_request_counter_counts_first_sample_of_new_envoy() -> None:
    counter = RequestCounter(SINCE)
    assert counter.requests(sample(1003, began=999.5, requests=4)) == {"web": 4}
    assert counter.requests(sample(1004, began=999.5, requests=4)) == {}
    assert counter.requests(sample(1005, began=999.5, requests=6)) == {"web": 2}


def test_request_counter_ignores_earlier_counts_of_old_envoy() -> None:
    counter = RequestCounter(SINCE)
    assert counter.requests(sample(1003, began=500, requests=400)) == {}
    assert counter.requests(sample(1004, began=500, requests=401)) == {"web": 1}


def test_request_counter_continues_after_missing_envoy() -> None:
    counter = RequestCounter(SINCE)
    counter.requests(sample(1003, began=500, requests=400))
    assert counter.requests(missing(1004)) == {}
    assert counter.requests(sample(1005, began=500, requests=405)) == {"web": 5}


def test_request_counter_of_restarted_envoy_counts_from_zero() -> None:
    counter = RequestCounter(SINCE)
    counter.requests(sample(1003, began=500, requests=400))
    assert counter.requests(sample(1010, began=1008, requests=3)) == {"web": 3}


def test_request_counter_includes_service_with_work_in_flight() -> None:
    counter = RequestCounter(SINCE)
    counter.requests(sample(1003, began=500, requests=400, active=1))
    assert counter.requests(sample(1004, began=500, requests=400, active=1)) == {"web": 0}


def test_request_counter_forgets_removed_envoy() -> None:
    counter = RequestCounter(SINCE)
    counter.requests(sample(1003, began=500, requests=400))
    counter.requests(Sample(1004, {}))
    assert counter.requests(sample(1005, began=500, requests=405)) == {}
