"""The evidence for a service's state, as plain JSON values. Pure.

Counterparts: `view.py`, the summary; `app/operations.py`, which adds the acknowledgements of Envoys and holders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from reconciler.core import judge
from reconciler.core.reasons import Blocker, Reason, Unknown
from reconciler.core.record import State, Transition
from reconciler.core.traffic import NEVER_USED, Sample
from reconciler.engine.service import ManagedService
from reconciler.engine.view import moment

LASTING_FAILURES = 2
"""Failed busy checks in a row that are reported."""


def unknown_fields(unknown: Unknown | None) -> dict[str, Any]:
    """Return the JSON fields for the cause of unknown usage; null if usage is known."""
    return {"unknown": unknown and unknown.message, "unknownReason": unknown and unknown.code.value}


def sample_fields(sample: Sample | None, source: str, now: float) -> dict[str, Any]:
    """Return the JSON fields for the source and the time of a sample; null before the first."""
    if sample is None:
        return {"source": source, "takenAt": None, "ageSeconds": None}
    age = round(max(0.0, now - sample.taken_at), 3)
    return {"source": source, "takenAt": moment(sample.taken_at), "ageSeconds": age}


def sampled(name: str, sample: Sample | None, unknown: Unknown | None, source: str, now: float) -> dict[str, Any]:
    """Return the latest sample of one service by Envoy, and its age."""
    envoys: list[dict[str, Any]] = []
    if sample:
        envoys += (
            {
                "id": envoy,
                "uptimeSeconds": reading.uptime,
                "used": name in reading.services,
                "counters": asdict(reading.services.get(name, NEVER_USED)),
            }
            for envoy, reading in sorted(sample.envoys.items())
        )
        envoys += ({"id": envoy, "missing": reason} for envoy, reason in sorted(sample.missing.items()))
    return {**sample_fields(sample, source, now), **unknown_fields(unknown), "envoys": envoys}


def judged(service: ManagedService) -> dict[str, Any] | None:
    """Return the latest usage of a service; None before the first."""
    traffic = service.seen.traffic
    if traffic is None:
        return None
    return {
        "usage": traffic.usage.value,
        "from": moment(traffic.window_start),
        "to": moment(traffic.taken_at),
        "inFlight": traffic.in_flight,
        "moved": traffic.moved,
        "reason": traffic.reason,
        "by": service.spec.idle_by.value,
    }


def drain_blocker(service: ManagedService) -> Blocker | None:
    """Return the drain blocker of a draining service; None in other states, or if there is none."""
    record = service.record
    if record is None or record.state is not State.Draining:
        return None
    return judge.drain_blocker(record, service.effective_spec, service.seen)


def failed_busy_checks(services: Mapping[str, ManagedService]) -> dict[str, str]:
    """Return the message of each busy check that fails again and again, and of each invalid time, by service."""
    found = {}
    for name, service in services.items():
        answer, until = service.seen.busy, service.seen.busy_until
        if until is not None and until.blocker.code is Reason.BAD_ANNOTATION:
            found[name] = until.blocker.message
        elif answer is not None and answer.blocker is not None and answer.failures >= LASTING_FAILURES:
            found[name] = f"{answer.blocker.message} ({answer.failures} times in a row)"
    return found


def moves(transitions: Sequence[Transition]) -> list[dict[str, Any]]:
    """Return the transitions as JSON, in the given order."""
    return [
        {
            "at": moment(move.at),
            "from": move.source.value,
            "event": move.event,
            "to": move.target.value,
            "reason": move.reason,
            "reference": move.reference or None,
        }
        for move in transitions
    ]


def settings(service: ManagedService) -> dict[str, Any]:
    """Return the part of the spec that the state depends on; durations in seconds."""
    spec = service.spec
    return {
        "hosts": list(spec.hosts),
        "listen": spec.listen,
        "replicas": spec.replicas,
        "idleAfter": spec.idle_after,
        "wakeTimeout": spec.wake_timeout,
        "holdTimeout": spec.hold_timeout,
        "drainTimeout": spec.drain_timeout,
        "maxHeld": spec.max_held,
        "idleBy": spec.idle_by.value,
        "wakeBy": spec.wake_by.value,
    }
