"""Colours, about Grafana's dark theme; one colour for each of zenvoy's words, the same on all dashboards."""

from __future__ import annotations

from collections.abc import Mapping

PAGE, PANEL, LINE, INK, FAINT = "#111217", "#181b1f", "#2a2d33", "#d5d6da", "#9a9ca3"
SMALL = 8.0
"""Points of ordinary text in a picture."""

STATE_COLORS: Mapping[str, str] = {
    "Active": "#56a64b",
    "Idle": "#b7d67a",
    "Draining": "#a77bd1",
    "Waking": "#ff9830",
    "ScaledToZero": "#5b86b8",
}
"""In the order in which they are stacked."""
GOOD, WARNING, BAD = "#56a64b", "#ff9830", "#e0394f"
STATE_NAMES: Mapping[str, tuple[str, str]] = {
    **{state: (state, color) for state, color in STATE_COLORS.items()},
    "Stalled": ("Stalled", BAD),
}
"""How a state is shown: its text and its colour."""
PART_COLORS: Mapping[str, str] = {
    "signal": "#f2cc0c",
    "started": "#6e9fff",
    "reachable": "#3fc1c9",
    "scale": "#ff7383",
    "scheduled": "#c0d8ff",
    "running": "#6e9fff",
    "ready": "#3fc1c9",
    "firstByte": "#a77bd1",
}
"""Of a wake, as they follow one another: those of one machine, and, in the middle, those of a cluster instead."""
CAUSE_COLORS: Mapping[str, str] = {
    "prometheus": "#e0394f",
    "no_envoy": "#ff9830",
    "envoy_missing": "#f2cc0c",
    "envoy_away": "#b7d67a",
    "envoy_new": "#56a64b",
    "envoy_restarted": "#3fc1c9",
    "first_sample": "#c0d8ff",
    "sample_not_newer": "#a77bd1",
    "replica_missing": "#ff7383",
    "replicas_unknown": "#b0764a",
    "leader_new": "#5b86b8",
    "not_leader": "#9a9ca3",
}
"""Why a sample says nothing."""
REASON_COLORS: Mapping[str, str] = {"max_held": WARNING, "timeout": BAD}
_NAMED = {"text": INK, "green": "#56a64b", "orange": "#ff9830", "red": "#e0394f", "blue": "#6e9fff"}
_OTHERS = (
    *("#6e9fff", "#f2cc0c", "#56a64b", "#ff7383", "#a77bd1", "#3fc1c9", "#ff9830", "#c0d8ff"),
    *("#b7d67a", "#e0394f", "#b0764a", "#5b86b8", "#e8a5d8", "#8f9a3a", "#d5d6da"),
)
"""As many as a panel of the first fifteen needs."""


def shade(color: str) -> str:
    """A colour of Grafana's by name, or one that is already written as a number."""
    return _NAMED.get(color, color)


class Palette:
    """Gives every name a colour: the one it should have, or the next that is free."""

    def __init__(self, fixed: Mapping[str, str]) -> None:
        self._given = {name: shade(color) for name, color in fixed.items()}

    def of(self, name: str) -> str:
        if name not in self._given:
            free = [color for color in _OTHERS if color not in self._given.values()] or list(_OTHERS)
            self._given[name] = free[0]
        return self._given[name]
