"""Colors for states, wake parts, and causes: the same on all dashboards."""

from __future__ import annotations

from collections.abc import Mapping

STATE_COLORS: Mapping[str, str] = {
    "Active": "#56a64b",
    "Idle": "#b7d67a",
    "Draining": "#a77bd1",
    "Waking": "#ff9830",
    "ScaledToZero": "#5b86b8",
}
"""In stacking order."""
GOOD, WARNING, BAD = "#56a64b", "#ff9830", "#e0394f"
STATE_NAMES: Mapping[str, tuple[str, str]] = {
    **{state: (state, color) for state, color in STATE_COLORS.items()},
    "Stalled": ("Stalled", BAD),
}
"""The text and the color of each state."""
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
"""The parts of a wake in order: those of one machine, with those of a cluster (`scale` to `ready`) in between."""
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
"""By cause of an unknown sample."""
REASON_COLORS: Mapping[str, str] = {"max_held": WARNING, "timeout": BAD}
