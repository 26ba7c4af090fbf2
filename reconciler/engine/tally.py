"""How often each service was used since the sample before, for people and metrics; idleness is judged elsewhere."""

from __future__ import annotations

from reconciler.core.traffic import NEVER_USED, Counters, Window


def requests_since(window: Window) -> dict[str, int]:
    """Requests by service, or connections where Envoy knows no requests; a service is named when a figure
    of it changed, or when it has work in flight."""
    used: dict[str, int] = {}
    for envoy, reading in window.after.envoys.items():
        before = window.before.envoys.get(envoy) if window.before else None
        for service, now in reading.services.items():
            was = before.services.get(service, NEVER_USED) if before else now
            if was != now or now.active_requests or now.active_connections:
                used[service] = used.get(service, 0) + _growth(was, now)
    return used


def _growth(was: Counters, now: Counters) -> int:
    """A counter that went backwards started again from zero."""
    before, after = _uses(was), _uses(now)
    return after - before if after >= before else after


def _uses(counters: Counters) -> int:
    return counters.requests or counters.connections
