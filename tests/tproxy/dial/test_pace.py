from __future__ import annotations

import pytest

from tproxy.dial.pace import (
    GAP_SECONDS,
    LOST_SECONDS_MAX,
    LOST_SECONDS_MIN,
    MAX_IN_FLIGHT,
    RETRY_SECONDS_MAX,
    RETRY_SECONDS_MIN,
    DialPace,
)


def test_pace_refused_for_longer_retries_less_often() -> None:
    pace = DialPace()
    assert pace.refused(100.0, endpoints=1, retrying=1) == RETRY_SECONDS_MIN
    assert pace.refused(101.0, endpoints=1, retrying=1) == pytest.approx(0.0025)
    assert pace.refused(200.0, endpoints=1, retrying=1) == RETRY_SECONDS_MAX
    pace.succeeded(0.001)
    assert pace.refused(300.0, endpoints=1, retrying=1) == RETRY_SECONDS_MIN


def test_pace_refused_tries_each_endpoint_before_waiting() -> None:
    pace = DialPace()
    assert [pace.refused(1.0, endpoints=3, retrying=1) for _ in range(6)] == [0, 0, RETRY_SECONDS_MIN] * 2


def test_pace_many_services_retrying_lengthens_the_interval() -> None:
    assert DialPace().refused(1.0, endpoints=1, retrying=50) == pytest.approx(0.010)


def test_pace_unanswered_halves_window_and_doubles_timeout() -> None:
    pace = DialPace()
    for _ in range(100):
        pace.succeeded(0.0001)
    assert (pace.window, pace.gap_seconds) == (MAX_IN_FLIGHT, 0)
    timeout = pace.timeout_seconds
    pace.unanswered()
    assert (pace.window, pace.gap_seconds, pace.timeout_seconds) == (MAX_IN_FLIGHT / 2, GAP_SECONDS, 2 * timeout)
    for _ in range(20):
        pace.unanswered()
    assert pace.window == 1


def test_pace_lost_dials_one_by_one_until_answered() -> None:
    pace = DialPace()
    for _ in range(5):
        pace.succeeded(0.001)
    assert pace.lost(100.0) == LOST_SECONDS_MIN
    pace.succeeded(0.001)
    assert (pace.window, pace.is_losing) == (1, True)
    assert pace.lost(101.0) == pytest.approx(0.05)
    assert pace.lost(200.0) == LOST_SECONDS_MAX
    pace.answered()
    pace.succeeded(0.001)
    assert (pace.window, pace.is_losing) == (2, False)
    assert pace.lost(300.0) == LOST_SECONDS_MIN
