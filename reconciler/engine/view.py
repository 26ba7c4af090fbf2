"""A service as plain JSON values: its summary, and the evidence for its state. Pure; times are ISO 8601 in UTC.

Counterpart: `app/admin.py`, which adds the acknowledgements of Envoys and holders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from reconciler.core import judge
from reconciler.core.judge import Observed
from reconciler.core.reasons import Blocker, Reason, Unknown
from reconciler.core.record import State, Transition
from reconciler.core.traffic import NEVER_USED, Sample
from reconciler.engine.service import ManagedService, Wake

LASTING_FAILURES = 2
"""Failed busy checks in a row that are reported."""


def summary(service: ManagedService) -> dict[str, Any]:
    """Return the fields of `zenvoy status -o json`."""
    record, seen, deadline = service.record, service.seen, service.deadline
    pending = seen.waiting_for if seen.route_acked_at is None else None
    return {
        "name": service.spec.name,
        "protocol": service.spec.protocol.value,
        "state": record.state.value if record else "Unknown",
        "since": moment(record.since) if record else None,
        "reason": record.reason if record else "not seen yet",
        "stalled": record.stalled if record else None,
        "reference": (service.ordered.reference or None) if service.ordered else None,
        "paused": service.spec.paused,
        "alwaysPaused": service.always_paused,
        "replicas": seen.replicas,
        "held": seen.held,
        "relayed": seen.relayed,
        "requests": service.requests,
        "refused": service.held.refused if service.held else 0,
        "gone": service.held.gone if service.held else 0,
        "deadline": {"at": moment(deadline.at), "event": deadline.event.__name__} if deadline else None,
        "lastWake": _wake(service.wake) if service.wake else None,
        "holdAddress": record.hold_address if record else None,
        "endpoints": list(seen.endpoints),
        "route": {"to": list(service.route), "ackedAt": moment(seen.route_acked_at), "waitingFor": pending},
        "traffic": _traffic(seen),
        "diagnosis": str(seen.diagnosis) if seen.diagnosis else None,
        "busy": _busy(seen),
        "unserved": _unserved(service),
    }


def moment(at: float | None) -> str | None:
    """Return seconds since the epoch as ISO 8601 with milliseconds."""
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


def _traffic(seen: Observed) -> dict[str, Any] | None:
    traffic = seen.traffic
    if traffic is None:
        return None
    return {"usage": traffic.usage.value, "takenAt": moment(traffic.taken_at), "reason": traffic.reason}


def _busy(seen: Observed) -> dict[str, Any] | None:
    """Return the latest answer of the busy check, and the annotation with a time; None without both."""
    answer, until = seen.busy, seen.busy_until
    if answer is None and until is None:
        return None
    blocker = answer.blocker if answer else None
    return {
        "askedAt": moment(answer.asked_at) if answer else None,
        "reason": blocker.code.value if blocker else None,
        "message": blocker.message if blocker else None,
        "failures": answer.failures if answer else 0,
        "until": until.blocker.message if until else None,
    }


def _unserved(service: ManagedService) -> dict[str, Any] | None:
    """Return why the idle time has grown; None if it is the configured one."""
    found = service.unserved.reason(service.spec)
    if found is None:
        return None
    return {
        "reason": found.code.value,
        "message": found.message,
        "wakes": service.unserved.in_a_row,
        "idleAfter": service.effective_spec.idle_after,
    }


def _wake(wake: Wake) -> dict[str, Any]:
    total = wake.total()
    return {
        "at": moment(wake.began_at),
        "reason": wake.reason,
        "readyAt": moment(wake.ready_at),
        "peer": wake.peer,
        "via": wake.via,
        "parts": {name: round(seconds, 6) for name, seconds in wake.parts().items()},
        "early": wake.early,
        "savedSeconds": None if wake.saved_seconds is None else round(wake.saved_seconds, 6),
        "total": None if total is None else round(total, 6),
    }


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
