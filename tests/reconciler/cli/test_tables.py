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
    "lastWake": {"total": 0.0626, "parts": {"signal": 0.0007, "started": 0.004, "reachable": 0.0584}},
}


def drawn(width: int) -> str:
    console = Console(width=width)
    with console.capture() as captured:
        console.print(tables.table([SERVICE], width=width))
    return captured.get()


@pytest.mark.parametrize("width", [80, 100, 120, 150, 200])
def test_names_states_and_figures_are_whole_in_every_terminal(width: int) -> None:
    rows = drawn(width).splitlines()
    assert len(rows) <= 3
    assert rows[1].startswith("greeter  ScaledToZero  ")
    assert "62.6 ms" in rows[1]
    assert ("41" in rows[1]) == (width >= tables.FOR_ALL)
    assert ("reachable 58.4 ms" in rows[1]) == (width >= tables.FOR_PARTS)


def test_a_line_says_what_of_a_service_has_changed() -> None:
    said = " ".join(tables.line(SERVICE).split())
    assert said == "greeter ScaledToZero idle for all of idleAfter"
    assert "Active (paused)" in tables.line({**SERVICE, "state": "Active", "paused": True})
