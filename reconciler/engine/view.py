"""The summary of a service as plain JSON values; times are ISO 8601 in UTC. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from reconciler.core.judge import Observed
from reconciler.engine.service import ManagedService
from reconciler.engine.wake import Wake


def view(service: ManagedService) -> dict[str, Any]:
    """Return the fields of `zenvoy status -o json`."""
    record, seen = service.record, service.seen
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
        "deadline": _deadline(service),
        "lastWake": _wake(service.wake) if service.wake else None,
        "holdAddress": record.hold_address if record else None,
        "endpoints": list(seen.endpoints),
        "route": {"to": list(service.route), "ackedAt": moment(seen.route_acked_at), "waitingFor": _pending(seen)},
        "traffic": _traffic(seen),
        "diagnosis": str(seen.diagnosis) if seen.diagnosis else None,
        "busy": _busy(seen),
        "unserved": _unserved(service),
    }


def moment(at: float | None) -> str | None:
    """Return seconds since the epoch as ISO 8601 with milliseconds."""
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


def _pending(seen: Observed) -> str | None:
    return None if seen.route_acked_at is not None else seen.waiting_for


def _deadline(service: ManagedService) -> dict[str, Any] | None:
    deadline = service.deadline
    return {"at": moment(deadline.at), "event": deadline.event.__name__} if deadline else None


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
    seconds = service.effective_spec.idle_after
    return {
        "reason": found.code.value,
        "message": found.message,
        "wakes": service.unserved.in_a_row,
        "idleAfter": seconds,
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
