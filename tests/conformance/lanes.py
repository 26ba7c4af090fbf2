"""Many short cases that mostly wait: several at once, each lane with a service of its own that sleeps between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.conformance.conftest import Outcome

LANES = 10
"""Envoy closes a failed connection after a second, for which a case waits."""
ATTEMPTS = 3
"""A server that closes a connection with unread data resets it, at times before its last words are read: a case fails
if it fails each time."""


def in_lanes(cases: Sequence[str], outcome: Callable[[int, str], Outcome]) -> dict[str, Outcome]:
    """Return the outcome of each case, called with the number of its lane."""

    def outcomes_of(lane: int) -> dict[str, Outcome]:
        return {case: outcome(lane, case) for case in cases[lane::LANES]}

    outcomes: dict[str, Outcome] = {}
    with ThreadPoolExecutor(LANES) as pool:
        for of_lane in pool.map(outcomes_of, range(LANES)):
            outcomes |= of_lane
    return outcomes


def attempt(case: Callable[[], str | None], attempts: int = ATTEMPTS) -> str | None:
    """Run a case until it passes, and return the output of the last attempt if each fails."""
    output = None
    for _ in range(attempts):
        output = case()
        if output is None:
            break
    return output
