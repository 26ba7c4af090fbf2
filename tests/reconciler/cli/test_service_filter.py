"""The selection and the totals of `zenvoy status`."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.cluster_client.status import ServiceFilter, has_problem, totals


def service(name: str, state: str, ready: str = "True", reason: str = "", stalled: str | None = None) -> dict[str, Any]:
    condition = {"type": "Ready", "status": ready, "reason": reason or state}
    return {"name": name, "state": state, "stalled": stalled, "conditions": [condition]}


ASLEEP, AWAKE = service("asleep", "ScaledToZero"), service("awake", "Active")
WAKING = service("waking", "Waking", "False")
STALLED = service("stalled", "Waking", "False", "ImagePullBackOff", "ImagePullBackOff: no such image")
MISTAKEN = service("mistaken", "Active", "False", "BadSpec")
NEW: dict[str, Any] = {"name": "new", "state": "Unknown", "stalled": None, "conditions": []}
ALL = [ASLEEP, AWAKE, WAKING, STALLED, MISTAKEN, NEW]


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        (ServiceFilter(), ["asleep", "awake", "waking", "stalled", "mistaken", "new"]),
        (ServiceFilter(("Waking",)), ["waking", "stalled"]),
        (ServiceFilter(("Waking", "ScaledToZero")), ["asleep", "waking", "stalled"]),
        (ServiceFilter(problems=True), ["stalled", "mistaken"]),
        (ServiceFilter(("Active",), problems=True), ["mistaken"]),
    ],
)
def test_service_filter_selects_by_state_and_problem(chosen: ServiceFilter, names: list[str]) -> None:
    assert [one["name"] for one in chosen.apply(ALL)] == names


def test_waking_service_has_no_problem() -> None:
    assert not has_problem(WAKING) and not has_problem(NEW)


def test_totals_count_states_and_problems() -> None:
    assert totals(ALL) == "6 services: 1 ScaledToZero, 2 Waking, 2 Active, 1 Unknown; 2 with a problem"
    assert totals([ASLEEP]) == "1 service: 1 ScaledToZero; none with a problem"
