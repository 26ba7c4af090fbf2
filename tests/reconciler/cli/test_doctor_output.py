"""The lines of `zenvoy doctor`: problems first, and alike notes together."""

from __future__ import annotations

from reconciler.cli.commands.maintenance import _result_lines
from reconciler.doctor.findings import CheckResult, Finding, FindingCode, Severity


def note(number: int, remedy: str = "remove spec.replicas from the manifest") -> Finding:
    message = "its manifest contains spec.replicas"
    return Finding(FindingCode.REPLICAS_APPLIED, f"Deployment shop/web-{number}", message, remedy, Severity.NOTE)


PROBLEM = Finding(FindingCode.KEDA_RAISES_REPLICAS, "ScaledObject shop/web", "it starts it again", "pause it")


def test_problems_come_first_and_alike_notes_are_one_entry() -> None:
    results = [
        CheckResult("services", "42 ScaledServices", (note(100, "another"),)),
        CheckResult("conflicts", "42 targets", (*(note(number) for number in range(42)), PROBLEM)),
    ]
    lines = list(_result_lines(results))
    assert [line for line in lines if line.startswith(("problem:", "note:"))] == [
        "problem: ScaledObject shop/web: KedaRaisesReplicas",
        "note: Deployment shop/web-100: ReplicasApplied",
        "note: Deployment shop/web-0: ReplicasApplied (and 41 more)",
    ]
    named = ", ".join(f"Deployment shop/web-{number}" for number in range(1, 6))
    assert f"  also at  {named}, …; all with -o json" in lines
    assert lines[-1] == "1 problem, 43 notes"
    assert len(lines) < 20


def test_few_alike_notes_name_every_place() -> None:
    lines = list(_result_lines([CheckResult("conflicts", "", (note(1), note(2)))]))
    assert "  also at  Deployment shop/web-2" in lines
