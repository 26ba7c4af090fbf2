"""Tests of the conditions under which a deleted service may be removed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.core.departure import LAST_SECONDS, still_needed
from reconciler.core.judge import Observed
from reconciler.core.reasons import Diagnosis
from reconciler.core.record import Record, State
from reconciler.core.spec import Spec

SPEC = Spec(name="web", departing=True)
ACKED = 1000.0
AWAKE = Observed(1, ("10.0.0.1:80",), held=0, relayed=0, route_acked_at=ACKED)
STARTS = replace(AWAKE, endpoints=())
STALLED = replace(STARTS, diagnosis=Diagnosis.parse("ImagePullBackOff: no such image"))


def needed(
    state: State, seen: Observed, spec: Spec = SPEC, is_missing: bool = False, now: float = ACKED + LAST_SECONDS
) -> str | None:
    reason = still_needed(Record(state, 900.0, "", 1, "127.64.0.7:18001"), spec, seen, is_missing, now)
    return str(reason) if reason else None


@pytest.mark.parametrize("state", [State.Active, State.Idle])
def test_deletion_of_routed_awake_service_is_allowed(state: State) -> None:
    assert needed(state, AWAKE) is None
    assert needed(state, AWAKE, now=ACKED) == "the route was acknowledged just now"
    unacked = replace(AWAKE, route_acked_at=None, waiting_for="Envoy b")
    assert needed(state, unacked) == "the route is not acknowledged: Envoy b"


def test_deletion_with_held_or_unknown_clients_is_delayed() -> None:
    assert needed(State.Active, replace(AWAKE, held=2)) == "2 clients are waiting"
    assert needed(State.Active, replace(AWAKE, held=None)) == "a holder is not connected"


@pytest.mark.parametrize("state", [State.ScaledToZero, State.Waking, State.Draining])
def test_deletion_of_sleeping_service_is_delayed(state: State) -> None:
    for held in (0, 1, None):
        assert needed(state, replace(STARTS, held=held)) == "TimedOut: not ready, and no reason is reported"
    assert needed(State.Active, STARTS) == "TimedOut: not ready, and no reason is reported"


def test_deletion_of_stalled_service_is_delayed_by_clients_only() -> None:
    assert needed(State.Waking, STALLED) is None
    assert needed(State.Waking, replace(STALLED, held=1)) == "ImagePullBackOff: no such image"
    assert needed(State.Waking, replace(STALLED, held=None)) == "ImagePullBackOff: no such image"


def test_deletion_with_missing_target_is_allowed() -> None:
    gone = replace(
        STARTS, replicas=0, held=1, diagnosis=Diagnosis.parse("TargetNotFound: Deployment shop/web does not exist")
    )
    assert needed(State.Waking, gone, is_missing=True) is None
    assert needed(State.Active, replace(AWAKE, held=1), is_missing=True) == "a client is waiting"


def test_deletion_without_departing_spec_is_delayed() -> None:
    assert needed(State.Idle, AWAKE, replace(SPEC, departing=False)) == "its deletion is not in force yet"
