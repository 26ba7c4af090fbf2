"""Exponential backoff: growth, bounds, and jitter."""

from __future__ import annotations

from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.backoff import Backoff

EXACT = Backoff(0.5, 3.0, jitter=(1.0, 1.0))


def test_backoff_delays_grow_to_the_longest() -> None:
    assert list(islice(EXACT.delays(lambda: 0.5), 5)) == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_backoff_factor_sets_the_growth() -> None:
    assert Backoff(1.0, 100.0, factor=3.0, jitter=(1.0, 1.0)).delay(2) == 9.0


def test_backoff_chance_selects_within_the_jitter() -> None:
    spread = Backoff(1.0, 8.0, jitter=(0.5, 1.0))
    assert (spread.delay(1, 0.0), spread.delay(1, 0.5)) == (1.0, 1.5)


@given(failures=st.integers(0, 100_000), chance=st.floats(0, 1, exclude_max=True))
def test_backoff_any_failures_stays_within_bounds(failures: int, chance: float) -> None:
    assert 0.02 * 0.8 <= Backoff(0.02, 2.0).delay(failures, chance) <= 2.0 * 1.2
