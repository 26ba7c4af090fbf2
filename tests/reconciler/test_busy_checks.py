"""Tests of the runner of busy checks: one question at a time for each service, and an answer to each."""

from __future__ import annotations

import asyncio

from reconciler.busy_checks import BusyCheckRunner
from reconciler.core.busy import BusyAnswer, busy
from reconciler.core.reasons import Blocker, Reason


class Asked:
    """A check whose answers the test gives."""

    def __init__(self) -> None:
        self.questions: list[str] = []
        self.answer: asyncio.Future[Blocker | None] = asyncio.get_running_loop().create_future()
        self.reports: asyncio.Queue[tuple[str, BusyAnswer]] = asyncio.Queue()

    async def check(self, service: str) -> Blocker | None:
        self.questions.append(service)
        return await asyncio.shield(self.answer)

    def report(self, service: str, answer: BusyAnswer) -> None:
        self.reports.put_nowait((service, answer))


async def test_service_is_asked_once_at_a_time() -> None:
    asked = Asked()
    runner = BusyCheckRunner(asked.check, asked.report)
    for at in (1.0, 2.0):
        runner.ask("web", at)
    runner.ask("other", 3.0)
    await asyncio.sleep(0)
    assert asked.questions == ["web", "other"]
    asked.answer.set_result(busy("GET /busy is answered with 200"))
    reports = dict([await asked.reports.get(), await asked.reports.get()])
    assert reports["web"] == BusyAnswer(1.0, busy("GET /busy is answered with 200"))
    runner.ask("web", 4.0)
    assert (await asked.reports.get())[1].asked_at == 4.0
    await runner.close()


async def test_check_that_raises_an_error_has_failed() -> None:
    asked = Asked()
    runner = BusyCheckRunner(asked.check, asked.report)
    runner.ask("web", 1.0)
    asked.answer.set_exception(RuntimeError("unexpected"))
    _, answer = await asked.reports.get()
    assert answer.blocker and answer.blocker.code is Reason.BUSY_CHECK_FAILED
    await runner.close()


async def test_closed_runner_reports_nothing() -> None:
    asked = Asked()
    runner = BusyCheckRunner(asked.check, asked.report)
    runner.ask("web", 1.0)
    await asyncio.sleep(0)
    await runner.close()
    assert asked.reports.empty()
