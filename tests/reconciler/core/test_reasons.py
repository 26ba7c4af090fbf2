"""Tests of reasons and of the values that carry them."""

from __future__ import annotations

import re
from pathlib import Path

from reconciler.core.reasons import STALL_REASONS, UNKNOWN_REASONS, Diagnosis, Problem, Reason
from reconciler.kubernetes.client import discovery
from reconciler.kubernetes.workloads import diagnosis, target_observer

TROUBLESHOOTING = Path(__file__).parents[3] / "docs" / "troubleshooting.md"
OF_CONDITIONS_ONLY = {"TargetUnavailable", "NotSeenYet"}
"""Reasons of conditions that are not codes of diagnoses."""


def test_reason_values_are_unique() -> None:
    assert len({reason.value for reason in Reason}) == len(Reason.__members__)


def test_reason_groups_are_disjoint() -> None:
    assert Reason.IMAGE_PULL_BACK_OFF in STALL_REASONS and Reason.OTHER in STALL_REASONS
    assert Reason.PROMETHEUS in UNKNOWN_REASONS and Reason.NOT_LEADER in UNKNOWN_REASONS
    assert not set(STALL_REASONS) & set(UNKNOWN_REASONS)


def test_diagnosis_of_known_code_has_its_reason() -> None:
    found = Diagnosis.of("FailedMount", "pod web-1: no secret")
    assert (found.code, str(found)) == (Reason.FAILED_MOUNT, "FailedMount: pod web-1: no secret")


def test_diagnosis_of_unknown_code_is_other_and_keeps_it() -> None:
    found = Diagnosis.of("SomethingNew", "pod web-1")
    assert (found.code, str(found)) == (Reason.OTHER, "SomethingNew: pod web-1")
    assert Diagnosis.of("InFlight", "pod web-1").code is Reason.OTHER


def test_diagnosis_parse_inverts_str() -> None:
    for found in (Diagnosis(code, "pod web-1: a: b") for code in STALL_REASONS):
        assert Diagnosis.parse(str(found)) == found
    for text in ("", "42", "no code at all", "SomethingNew: pod web-1", "ends with: "):
        assert Diagnosis.parse(text) == Diagnosis(Reason.OTHER, text)


def test_problem_str_is_one_line() -> None:
    problem = Problem(Reason.LISTEN_TAKEN, "spec.listen", "port 80\nis taken", "choose another port")
    assert str(problem) == "spec.listen: port 80 is taken; choose another port"


def test_stall_reasons_include_all_of_troubleshooting() -> None:
    page = TROUBLESHOOTING.read_text()
    of_wakes = page[page.index("## A service does not wake") : page.index("## The spec")]

    explained = set(re.findall(r"^### (\w+)$", of_wakes, re.MULTILINE)) - OF_CONDITIONS_ONLY

    assert len(explained) > 20
    assert explained | set(diagnosis.MOUNT_REASONS) <= set(STALL_REASONS)


def test_stall_reasons_include_all_of_kubernetes() -> None:
    source = "".join(Path(str(module.__file__)).read_text() for module in (target_observer, diagnosis, discovery))

    assert set(re.findall(r'(?<!")"([A-Z][A-Za-z]{5,}): ', source)) <= set(STALL_REASONS)
