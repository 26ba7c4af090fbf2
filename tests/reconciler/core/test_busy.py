"""Tests of what keeps a service awake without a client. `test_rules` has the checks for any order of events."""

from __future__ import annotations

import pytest

from reconciler.core.busy import (
    BusyAnswer,
    BusyUntil,
    ask_again_after,
    blocker_of,
    busy,
    check_failed,
    of_exit_code,
    of_status,
)
from reconciler.core.reasons import Blocker, Reason
from reconciler.core.spec import Spec

BUSY, FAILED = busy("GET /busy is answered with 200"), check_failed("GET /busy is not answered")
CHECKED, UNCHECKED = Spec(name="web", has_busy_check=True), Spec(name="web")


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (200, Reason.BUSY),
        (202, Reason.BUSY),
        (204, None),
        (101, Reason.BUSY_CHECK_FAILED),
        (302, Reason.BUSY_CHECK_FAILED),
        (404, Reason.BUSY_CHECK_FAILED),
        (503, Reason.BUSY_CHECK_FAILED),
    ],
)
def test_status_has_its_meaning(status: int, code: Reason | None) -> None:
    found = of_status("GET /busy", status)
    assert (found.code if found else None) == code


@pytest.mark.parametrize(
    ("exit_code", "code"),
    [(0, Reason.BUSY), (1, None), (2, Reason.BUSY_CHECK_FAILED), (None, Reason.BUSY_CHECK_FAILED)],
)
def test_exit_code_has_its_meaning(exit_code: int | None, code: Reason | None) -> None:
    found = of_exit_code("pgrep", exit_code)
    assert (found.code if found else None) == code


def test_answers_count_their_failures_in_a_row() -> None:
    first = BusyAnswer(1, FAILED).after(None)
    second = BusyAnswer(2, FAILED).after(first)
    assert [first.failures, second.failures, BusyAnswer(3, BUSY).after(second).failures] == [1, 2, 0]


def test_annotation_counts_until_its_time() -> None:
    until = BusyUntil(100.0, Blocker(Reason.BUSY_UNTIL, "until then"))
    assert blocker_of(UNCHECKED, None, until, 99.0) == until.blocker
    assert blocker_of(UNCHECKED, None, until, 100.0) is None


def test_answer_from_before_the_question_does_not_count() -> None:
    answer = BusyAnswer(10.0, BUSY)
    assert blocker_of(CHECKED, answer, None, 20.0, asked_from=10.0) == BUSY
    assert blocker_of(CHECKED, answer, None, 20.0, asked_from=10.1) is None


def test_answer_without_a_check_does_not_count() -> None:
    assert blocker_of(UNCHECKED, BusyAnswer(10.0, BUSY), None, 20.0) is None


@pytest.mark.parametrize(("idle_after", "pause"), [(0.001, 1.0), (5.0, 5.0), (3600.0, 60.0)])
def test_pause_between_questions_is_bounded(idle_after: float, pause: float) -> None:
    assert ask_again_after(Spec(name="web", idle_after=idle_after, has_busy_check=True)) == pause
