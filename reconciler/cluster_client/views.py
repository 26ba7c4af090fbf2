"""A ScaledService as people see it: the fields of `zenvoy status -o json`, as far as the object has them. Pure.

Counterpart: `reconciler.engine.view`, which has the live figures too.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from reconciler.kubernetes.objects import Condition
from reconciler.kubernetes.resources import ScaledService

UNKNOWN = "Unknown"
READY = "Ready"
AWAKE = ("Active", "Idle")
STATES = ("ScaledToZero", "Waking", *AWAKE, "Draining")


def view(item: ScaledService) -> dict[str, Any]:
    """What the object says. Live figures are None: they are the controller's to tell."""
    meta, status = item.metadata, item.status
    ready = condition(item, READY)
    return {
        "name": meta.key,
        "namespace": meta.namespace,
        "state": status.state or UNKNOWN,
        "since": moment(status.since),
        "reason": status.reason or (ready.message if ready else "no controller has seen it yet"),
        "stalled": status.stalled,
        "paused": item.spec.paused,
        "target": target(item),
        "ready": ready.status if ready else UNKNOWN,
        "replicas": status.replicas,
        "held": None,
        "relayed": None,
        "requests": None,
        "deadline": None,
        "lastWake": None,
        "holdAddress": status.hold_address or None,
        "conditions": [_said(one) for one in item.status.conditions],
        "observed": status.observed_generation == meta.generation,
        "live": False,
    }


def merged(seen: Mapping[str, Any], live: Mapping[str, Any] | None) -> dict[str, Any]:
    """With the live figures, which are newer, when there are any."""
    return {**seen, **live, "live": True} if live else dict(seen)


def target(item: ScaledService) -> str:
    """What is scaled, as `Kind/name`."""
    ref = item.spec.scale_target_ref
    return f"{ref.kind or 'Deployment'}/{ref.name or item.spec.service or item.metadata.name}"


def condition(item: ScaledService, kind: str) -> Condition | None:
    return next((one for one in item.status.conditions if one.type == kind), None)


def why(seen: Mapping[str, Any]) -> str:
    """The reason to show: what is wrong, before why the state was entered."""
    ready = next((one for one in seen["conditions"] if one["type"] == READY), None)
    if seen["stalled"]:
        return str(seen["stalled"])
    if ready and ready["status"] == "False" and ready["reason"] not in STATES:
        return str(ready["message"])
    return str(seen["reason"])


def moment(at: datetime | None) -> str | None:
    """As ISO 8601 with milliseconds, in UTC."""
    return None if at is None else at.astimezone(UTC).isoformat(timespec="milliseconds")


def _said(one: Condition) -> dict[str, Any]:
    return {
        "type": one.type,
        "status": one.status,
        "reason": one.reason,
        "message": one.message,
        "since": moment(one.last_transition_time),
    }
