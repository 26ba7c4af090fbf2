from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tproxy.hold_queue import HeldConnection, HoldQueue, RefusalCause, unassigned
from tproxy.wire import Assignment, Go, Hold, Verdict

ADDRESS = "127.64.0.7:1"


def unexpected(held: HeldConnection, events: int) -> None:
    raise AssertionError


def new_queue(verdict: Verdict, max_held: int = 2, reason: str | None = None) -> HoldQueue:
    return HoldQueue(ADDRESS, unexpected, Assignment(ADDRESS, "web", "http", verdict, max_held, 3.0, reason))


@pytest.mark.parametrize("verdict", [Hold(), Go(("127.0.0.1:1",))])
def test_queue_at_max_held_is_full(verdict: Verdict) -> None:
    assert not new_queue(verdict).is_full
    assert new_queue(verdict, max_held=0).is_full


def test_queue_without_assignment_accepts_connections() -> None:
    queue = HoldQueue(ADDRESS, unexpected, unassigned(ADDRESS, 10.0))
    assert not queue.is_full
    assert not queue.is_assigned


@settings(deadline=None)
@given(st.lists(st.integers(0, 400), max_size=400))
def test_queue_removal_from_anywhere_keeps_the_order(removed: list[int]) -> None:
    queue = new_queue(Hold())
    queue.held_since, queue.peer = 0.0, "192.0.2.7"
    connections = [HeldConnection(index + 3, queue, float(index)) for index in range(401)]
    queue.waiting.extend(connections)
    queue.held = len(connections)
    left = set()
    for index in removed:
        if index not in left:
            left.add(index)
            assert queue.remove(connections[index]) == index + 3
    rest = [held for index, held in enumerate(connections) if index not in left]
    assert queue.held == len(rest)
    assert [held for held in queue.waiting if held.fd >= 0] == rest
    assert queue.oldest() is (rest[0] if rest else None)
    assert len(queue.waiting) <= 2 * queue.held + 65


@pytest.mark.parametrize("cause", [cause for cause in get_args(RefusalCause) if cause != "unassigned"])
def test_refusal_reason_names_service_and_stall(cause: RefusalCause) -> None:
    reason = new_queue(Hold(), reason="exit code 1").refusal_reason(cause, 1.5)
    assert reason.startswith("web ")
    assert reason.endswith(": exit code 1")


@pytest.mark.parametrize(
    ("is_reachable", "was_released", "is_unanswered"), [(1, 1, True), (1, 0, False), (0, 1, False)]
)
def test_refusal_reason_unanswered_is_not_a_failed_start(
    is_reachable: bool, was_released: bool, is_unanswered: bool
) -> None:
    queue = new_queue(Go(("127.0.0.1:80",)) if is_reachable else Hold())
    reason = queue.refusal_reason("timeout", 1.5, was_released=was_released)
    assert ("web accepts connections, but ended this one without an answer for 1.5 s" in reason) is is_unanswered
    assert ("did not start" in reason) is not is_unanswered
