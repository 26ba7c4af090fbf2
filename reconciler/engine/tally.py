"""New requests of each service since the previous sample, for people and metrics; idleness is judged elsewhere."""

from __future__ import annotations

from reconciler.core.traffic import NEVER_USED, RESTART_TOLERANCE_SECONDS, Counters, EnvoyReading, Sample


class Tally:
    """Everything since `since` (seconds since the epoch): an Envoy that began earlier may have counted for another."""

    def __init__(self, since: float) -> None:
        self._since = since
        self._known: dict[str, EnvoyReading] = {}
        """The latest reading of each Envoy; one that was missing for a while goes on where it was."""

    def requests(self, sample: Sample) -> dict[str, int]:
        """New requests by service, or connections where Envoy knows no requests; a service is named when a figure
        of it changed, or when it has work in flight."""
        used: dict[str, int] = {}
        for envoy, reading in sample.envoys.items():
            before = self._known.get(envoy)
            is_ours = before is not None or self._began_since(reading, sample.read_at(envoy))
            for service, now in reading.services.items():
                was = before.services.get(service, NEVER_USED) if before else NEVER_USED if is_ours else now
                if was != now or now.active_requests or now.active_connections:
                    used[service] = used.get(service, 0) + _growth(was, now)
        kept = {envoy: self._known[envoy] for envoy in sample.missing if envoy in self._known}
        self._known = {**kept, **sample.envoys}
        return used

    def _began_since(self, reading: EnvoyReading, read_at: float) -> bool:
        return read_at - reading.uptime >= self._since - RESTART_TOLERANCE_SECONDS


def _growth(was: Counters, now: Counters) -> int:
    """A counter that went backwards started again from zero."""
    before, after = _uses(was), _uses(now)
    return after - before if after >= before else after


def _uses(counters: Counters) -> int:
    return counters.requests or counters.connections
