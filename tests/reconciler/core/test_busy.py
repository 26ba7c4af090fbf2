"""Tests of busy checks: what keeps a service awake without a client, and when it is asked, for any order of events."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from reconciler.core.busy import BusyAnswer, BusyUntil, blocker_of, busy, check_failed, of_exit_code, of_status
from reconciler.core.reasons import Blocker, Reason
from reconciler.core.record import State
from reconciler.core.spec import Spec
from reconciler.plan import Zero
from tests.reconciler.core.test_rules import SPEC, Rules

BUSY, FAILED = busy("GET /busy is answered with 200"), check_failed("GET /busy is not answered")
CHECKED = Spec(name="web", has_busy_check=True)


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
    assert blocker_of(SPEC, None, until, 99.0) == until.blocker
    assert blocker_of(SPEC, None, until, 100.0) is None


def test_answer_from_before_the_question_does_not_count() -> None:
    answer = BusyAnswer(10.0, BUSY)
    assert blocker_of(CHECKED, answer, None, 20.0, asked_from=10.0) == BUSY
    assert blocker_of(CHECKED, answer, None, 20.0, asked_from=10.1) is None


def test_answer_without_a_check_does_not_count() -> None:
    assert blocker_of(SPEC, BusyAnswer(10.0, BUSY), None, 20.0) is None


class RulesWithBusyCheck(Rules):
    """The rules of every service, for one that may work without a client."""

    spec = replace(SPEC, has_busy_check=True)

    @rule(job=st.sampled_from([None, BUSY, FAILED]))
    def the_program_works_or_rests(self, job: Blocker | None) -> None:
        """Change the answer of the program, unless it already stops: an idle program starts no work by itself."""
        if self.world.state not in (State.Draining, State.ScaledToZero):
            self.world.job = job

    @rule()
    def the_program_answers(self) -> None:
        self.world.answer()

    @invariant()
    def sleep_does_not_cut_work(self) -> None:
        changes = [move for move in self.world.transitions if move.source is not move.target]
        if isinstance(self.world.scale, Zero) and changes and changes[-1].event == "Drained":
            assert self.world.job is None

    @invariant()
    def a_state_that_must_end_has_a_deadline(self) -> None:
        if self.world.state is State.Idle and not self.world.deadline:
            is_paused = "web" in self.world.on_pause
            assert is_paused or self.world.asked_at is not None or not self.world.service.spec.has_busy_check
        else:
            super().a_state_that_must_end_has_a_deadline()

    def teardown(self) -> None:
        """Check that a program that rests again sleeps."""
        if hasattr(self, "world"):
            self.world.job = None
            for _ in range(70):  # longer than the pause between two questions
                self.world.answer()
                self.world.all_goes_well(1, finishing=True)
        super().teardown()


TestRulesWithBusyCheck = RulesWithBusyCheck.TestCase
TestRulesWithBusyCheck.settings = settings(
    max_examples=100, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
