"""How often services were used, by samples of Envoys that come, go, and begin again."""

from __future__ import annotations

from reconciler.core.traffic import Counters, EnvoyReading, Sample
from reconciler.engine.tally import Tally

SINCE = 1000.0


def sample(at: float, began: float, requests: int, active: int = 0) -> Sample:
    """One Envoy's, which began at `began`."""
    counted = {"web": Counters(requests=requests, active_requests=active)}
    return Sample(at, {"envoy": EnvoyReading(at - began, counted)})


def missing(at: float) -> Sample:
    return Sample(at, {}, {"envoy": "it did not answer"})


def test_what_an_envoy_counted_before_the_first_sample_counts_if_it_began_with_us() -> None:
    tally = Tally(SINCE)
    assert tally.requests(sample(1003, began=999.5, requests=4)) == {"web": 4}
    assert tally.requests(sample(1004, began=999.5, requests=4)) == {}
    assert tally.requests(sample(1005, began=999.5, requests=6)) == {"web": 2}


def test_what_an_older_envoy_counted_before_is_not_ours() -> None:
    tally = Tally(SINCE)
    assert tally.requests(sample(1003, began=500, requests=400)) == {}
    assert tally.requests(sample(1004, began=500, requests=401)) == {"web": 1}


def test_nothing_is_lost_while_an_envoy_does_not_answer() -> None:
    tally = Tally(SINCE)
    tally.requests(sample(1003, began=500, requests=400))
    assert tally.requests(missing(1004)) == {}
    assert tally.requests(sample(1005, began=500, requests=405)) == {"web": 5}


def test_an_envoy_that_began_again_counts_from_zero() -> None:
    tally = Tally(SINCE)
    tally.requests(sample(1003, began=500, requests=400))
    assert tally.requests(sample(1010, began=1008, requests=3)) == {"web": 3}


def test_work_in_flight_is_use_though_nothing_is_new() -> None:
    tally = Tally(SINCE)
    tally.requests(sample(1003, began=500, requests=400, active=1))
    assert tally.requests(sample(1004, began=500, requests=400, active=1)) == {"web": 0}


def test_an_envoy_that_is_no_more_is_forgotten() -> None:
    tally = Tally(SINCE)
    tally.requests(sample(1003, began=500, requests=400))
    tally.requests(Sample(1004, {}))
    assert tally.requests(sample(1005, began=500, requests=405)) == {}
