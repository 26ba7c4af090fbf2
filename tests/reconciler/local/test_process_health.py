"""Replacement of a process that does not answer: only after probes that were made on time."""

from __future__ import annotations

from pathlib import Path

from reconciler.local.process_supervisor import (
    BUSY_SECONDS,
    HUNG_SECONDS,
    LATE_SECONDS,
    START_SECONDS,
    Health,
    answers,
)


def silent(health: Health, now: float, until: float, *, step: float = 3.0, cpu_share: float = 0.0) -> float | None:
    """Report failed probes; return the time of the replacement."""
    began = now
    while now < until:
        now += step
        if health.probed(False, now, (now - began) * cpu_share):
            return now
    return None


def ready(now: float = 0.0) -> Health:
    health = Health(now)
    assert health.probed(True, now + 0.1, 0.0) is None
    return health


def test_health_silent_process_is_replaced_after_the_bound() -> None:
    at = silent(ready(), 0.1, 100)
    assert at is not None
    assert HUNG_SECONDS <= at <= HUNG_SECONDS + 4


def test_health_busy_process_has_more_time() -> None:
    at = silent(ready(), 0.1, 200, cpu_share=0.5)
    assert at is not None
    assert BUSY_SECONDS <= at <= BUSY_SECONDS + 4


def test_health_starting_process_has_more_time() -> None:
    at = silent(Health(0.0), 0.0, 200)
    assert at is not None
    assert START_SECONDS <= at <= START_SECONDS + 4


def test_health_one_answer_starts_over() -> None:
    health = ready()
    assert silent(health, 0.1, HUNG_SECONDS - 3) is None
    assert health.probed(True, HUNG_SECONDS - 1, 0.0) is None
    assert silent(health, HUNG_SECONDS - 1, 2 * HUNG_SECONDS - 5) is None


def test_health_late_supervisor_proves_nothing() -> None:
    """The machine was suspended, or short of processor time, or the supervisor was stopped too."""
    assert silent(ready(), 0.1, 1000, step=LATE_SECONDS + 0.5) is None


async def test_answers_is_false_where_nothing_listens(tmp_path: Path) -> None:
    assert not await answers(tmp_path / "nothing.sock")
    assert not await answers(tmp_path / "no-such-folder" / "nothing.sock")
