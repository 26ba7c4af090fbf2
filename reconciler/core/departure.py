"""Conditions under which a deleted service may be removed: no client is held, and none can still be routed to a holder.

Pure. Counterparts: `judge.py`, which wakes a deleted service, and the finalizer, which delays the deletion.
"""

from __future__ import annotations

from reconciler.core.judge import HOLDER_MISSING, Observed, route_blocker, waiting_clients
from reconciler.core.reasons import UNEXPLAINED, Blocker, Diagnosis, Reason
from reconciler.core.record import Record, State
from reconciler.core.spec import Spec

LAST_SECONDS = 0.5
"""Time after the acknowledgement of the route in which a connection may still reach the hold address uncounted."""


def still_needed(
    record: Record, spec: Spec, seen: Observed, is_missing: bool, now: float
) -> Blocker | Diagnosis | None:
    """Return why the service may not be removed yet, for people, or None if it may.

    It may be removed once every Envoy routes new connections to its endpoints and no connection is held. If none is
    held, it need not become ready while something prevents that. `is_missing` means that its target does not exist;
    `now` is seconds since the epoch.
    """
    if not spec.departing:
        return Blocker(Reason.DELETION_NOT_APPLIED, "its deletion is not in force yet")
    if record.state not in (State.Active, State.Idle) or not seen.endpoints:
        hopeless = is_missing or (seen.diagnosis is not None and seen.held == 0)
        return None if hopeless else seen.diagnosis or UNEXPLAINED
    if seen.held is None:
        return HOLDER_MISSING
    if seen.held:
        return Blocker(Reason.CONNECTIONS_HELD, waiting_clients(seen.held))
    if seen.route_acked_at is None:
        return route_blocker(seen)
    if now < seen.route_acked_at + LAST_SECONDS:
        return Blocker(Reason.ROUTE_JUST_ACKNOWLEDGED, "the route was acknowledged just now")
    return None
