"""ScaledServices that are not as their owners want them: what their conditions say. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.cluster_client.views import READY, STATES, condition
from reconciler.core.wording import counted
from reconciler.doctor.finding import Examined, Finding
from reconciler.kubernetes.resources import KIND, ScaledService

STALLED = "Stalled"
BEFORE = "; "
"""A problem's own words end with what would be right."""


def examined(items: list[ScaledService]) -> Examined:
    """Each with a condition that is neither as expected nor a state."""
    found = tuple(finding for item in items for finding in _of(item))
    return Examined("services", counted(len(items), KIND), found)


def _of(item: ScaledService) -> Iterator[Finding]:
    where = f"{KIND} {item.metadata.key}"
    stalled, ready = condition(item, STALLED), condition(item, READY)
    if stalled and stalled.status == "True":
        yield Finding(where, f"its wake does not get on: {stalled.message}", "docs/runbooks/ServiceStuckWaking.md")
    elif ready and ready.status == "False" and ready.reason not in STATES:
        yield Finding(where, ready.message, f"zenvoy explain {item.metadata.key}")
    elif ready is None:
        yield Finding(where, "no controller has seen it yet", "see the findings about the controller")
    elif item.status.observed_generation < item.metadata.generation:
        what = f"its newest spec (generation {item.metadata.generation}) is not in force yet"
        yield Finding(where, what, "wait a moment; see the findings about the controller if it stays so")
