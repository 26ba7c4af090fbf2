"""The table of `zenvoy status`, in terminals of any width."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from reconciler.cli import tables

SERVICE: dict[str, Any] = {
    "name": "greeter",
    "state": "ScaledToZero",
    "since": "2026-01-01T00:00:00+00:00",
    "reason": "idle for all of idleAfter",
    "stalled": None,
    "paused": False,
    "held": 0,
    "relayed": 3,
    "requests": 41,
    "deadline": None,
    "traffic": None,
    "lastWake": {
        "readyAt": "2026-01-01T00:00:00+00:00",
        "total": 0.0626,
        "parts": {"signal": 0.0007, "started": 0.004, "reachable": 0.0584},
    },
}


def drawn(width: int) -> str:
    console = Console(width=width)
    with console.capture() as captured:
        console.print(tables.table([SERVICE], width=width))
    return captured.get()


@pytest.mark.parametrize("width", [80, 100, 120, 150, 200])
def test_table_any_width_shows_names_and_states_whole(width: int) -> None:
    rows = drawn(width).splitlines()
    assert len(rows) <= 3
    assert rows[1].startswith("greeter  ScaledToZero  ")
    assert "62.6 ms" in rows[1]
    assert ("41" in rows[1]) == (width >= tables.WIDTH_FOR_ALL)
    assert ("reachable 58.4 ms" in rows[1]) == (width >= tables.WIDTH_FOR_PARTS)


def test_last_wake_lists_the_saved_time() -> None:
    wake = {"readyAt": "2026-01-01T00:00:00+00:00", "total": 2.5, "parts": {"ready": 2.5}, "savedSeconds": 7.25}
    shown = tables.last_wake({**SERVICE, "lastWake": wake})
    assert shown == "2.5 s (ready 2.5 s), 7.25 s before Kubernetes called it ready"
    unconfirmed = {**wake, "savedSeconds": None, "early": True}
    shown = tables.last_wake({**SERVICE, "lastWake": unconfirmed})
    assert shown == "2.5 s (ready 2.5 s), and Kubernetes has not called it ready yet"
    by_kubernetes = {**unconfirmed, "early": False}
    assert tables.last_wake({**SERVICE, "lastWake": by_kubernetes}) == "2.5 s (ready 2.5 s)"


def test_line_contains_state_and_reason() -> None:
    said = " ".join(tables.line(SERVICE).split())
    assert said == "greeter ScaledToZero idle for all of idleAfter"
    assert "Active (paused)" in tables.line({**SERVICE, "state": "Active", "paused": True})


@pytest.mark.parametrize(
    ("state", "relayed", "ready_at", "outcome"),
    [
        ("Waking", 0, None, "in progress"),
        ("Active", 1, "2026-01-01T00:00:00+00:00", "in progress"),
        ("Active", 0, "2026-01-01T00:00:00+00:00", "abandoned"),
        ("ScaledToZero", 0, "2026-01-01T00:00:00+00:00", "abandoned"),
        ("ScaledToZero", 0, None, "failed"),
        ("Draining", 0, None, "failed"),
        ("Draining", 1, None, "failed"),
    ],
)
def test_last_wake_unfinished_shows_its_outcome(state: str, relayed: int, ready_at: str | None, outcome: str) -> None:
    wake = {"total": None, "readyAt": ready_at, "parts": {"signal": 0.001}}
    service = {**SERVICE, "state": state, "relayed": relayed, "lastWake": wake}
    assert tables.last_wake(service) == f"{outcome} (signal 1 ms)"
