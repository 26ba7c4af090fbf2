"""New requests of each service since the previous sample, for people and metrics; not used to judge idleness."""

from __future__ import annotations

from reconciler.core.traffic import NEVER_USED, RESTART_TOLERANCE_SECONDS, Counters, EnvoyReading, Sample


class RequestCounter:
    """Counts since `since` (seconds since the epoch); earlier counts of an Envoy may belong to another process."""

    def __init__(self, since: float) -> None:
        self._since = since
        self._known: dict[str, EnvoyReading] = {}
        """Latest reading of each Envoy, including those that are missing from the latest sample."""

    def requests(self, sample: Sample) -> dict[str, int]:
        """Return new requests by service, or new connections if Envoy counts no requests.

        The result contains every service with a changed counter or with work in flight.
        """
        used: dict[str, int] = {}
        for envoy, reading in sample.envoys.items():
            before = self._known.get(envoy)
            began = sample.read_at(envoy) - reading.uptime
            is_ours = before is not None or began >= self._since - RESTART_TOLERANCE_SECONDS
            for service, now in reading.services.items():
                was = before.services.get(service, NEVER_USED) if before else NEVER_USED if is_ours else now
                if was != now or now.active_requests or now.active_connections:
                    used[service] = used.get(service, 0) + _growth(was, now)
        kept = {envoy: self._known[envoy] for envoy in sample.missing if envoy in self._known}
        self._known = {**kept, **sample.envoys}
        return used


def _growth(was: Counters, now: Counters) -> int:
    """Return the growth of a counter; one that went backwards started again at zero."""
    before, after = _uses(was), _uses(now)
    return after - before if after >= before else after


def _uses(counters: Counters) -> int:
    return counters.requests or counters.connections
