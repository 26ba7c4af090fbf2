"""Exponential backoff: growth, bounds, and jitter; calls in the next turn of the event loop."""

from __future__ import annotations

import asyncio
from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from reconciler.concurrency import Backoff, NextTurn

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


async def test_next_turn_calls_once_for_each_key_in_order() -> None:
    called: list[str] = []
    turn = NextTurn(called.append)
    for key in ("b", "a", "b"):
        turn.add(key)
    assert called == []
    await asyncio.sleep(0)
    assert called == ["b", "a"]


async def test_next_turn_key_added_in_a_call_waits_a_turn() -> None:
    called: list[str] = []

    def call(key: str) -> None:
        called.append(key)
        if len(called) < 2:
            turn.add(key)

    turn = NextTurn(call)
    turn.add("a")
    await asyncio.sleep(0)
    assert called == ["a"]
    await asyncio.sleep(0)
    assert called == ["a", "a"]
