"""When a service that is being deleted may go: not while somebody waits for it, nor while somebody may come to wait.

No I/O, no clock. Counterparts: `judge.py`, which wakes what departs, and whoever holds the deletion up.
"""

from __future__ import annotations

from reconciler.core.judge import Observed
from reconciler.core.reasons import UNEXPLAINED
from reconciler.core.record import Record, State
from reconciler.core.spec import Spec

LAST_SECONDS = 0.5
"""How long after the route to its endpoints was acknowledged somebody may still come to the hold address, uncounted."""


def still_needed(record: Record, spec: Spec, seen: Observed, is_missing: bool, now: float) -> str | None:
    """Why it may not go yet, for people; None when it may. `is_missing`: nothing is there that could get ready.

    `now` is seconds since the epoch. It may go once new connections go to its endpoints everywhere and nobody is held.
    Where nobody is held, it need not get ready if something keeps it from that.
    """
    if not spec.departing:
        return "its deletion is not in force yet"
    if record.state not in (State.Active, State.Idle) or not seen.endpoints:
        hopeless = is_missing or (seen.diagnosis is not None and seen.held == 0)
        return None if hopeless else str(seen.diagnosis or UNEXPLAINED)
    if seen.held is None:
        return "a holder is not connected"
    if seen.held:
        return f"{seen.held} waiting"
    if seen.route_acked_at is None:
        return f"the route is not acknowledged: {seen.waiting_for}"
    return "the route was acknowledged just now" if now < seen.route_acked_at + LAST_SECONDS else None
