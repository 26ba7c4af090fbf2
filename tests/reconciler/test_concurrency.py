"""Exponential backoff: growth, bounds, and jitter."""

from __future__ import annotations

from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from reconciler.concurrency import Backoff

EXACT = Backoff(0.5, 3.0, jitter=(1.0, 1.0))


def test_backoff_delays_grow_to_the_longest() -> None:
    assert list(islice(EXACT.delays(), 5)) == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_backoff_factor_sets_the_growth() -> None:
    assert Backoff(1.0, 100.0, factor=3.0, jitter=(1.0, 1.0)).delay(2) == 9.0


def test_backoff_delays_are_spread_within_the_jitter() -> None:
    spread = Backoff(1.0, 8.0, jitter=(0.5, 1.0))
    found = {spread.delay(1) for _ in range(1000)}
    assert 1.0 <= min(found) < 1.1, "from the lower bound"
    assert 1.9 < max(found) <= 2.0, "to the upper one"


@given(failures=st.integers(0, 100_000))
def test_backoff_any_failures_stays_within_bounds(failures: int) -> None:
    assert 0.02 * 0.8 <= Backoff(0.02, 2.0).delay(failures) <= 2.0 * 1.2
