"""Tests of the conditions under which the object of a deleted service may be removed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.core.judge import Observed
from reconciler.core.lifecycle import CLOSING_SECONDS, Stage, deletion_blocker
from reconciler.core.reasons import Diagnosis
from reconciler.core.record import Record, State

ACKED = 1000.0
AWAKE = Observed(1, ("10.0.0.1:80",), held=0, relayed=0, route_acked_at=ACKED)
STARTS = replace(AWAKE, endpoints=())
STALLED = replace(STARTS, diagnosis=Diagnosis.parse("ImagePullBackOff: no such image"))


def needed(
    state: State,
    seen: Observed,
    stage: Stage = Stage.Deleting,
    is_missing: bool = False,
    now: float = ACKED + CLOSING_SECONDS,
) -> str | None:
    reason = deletion_blocker(stage, Record(state, 900.0, "", 1, "127.64.0.7:18001"), seen, is_missing, now)
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


@pytest.mark.parametrize("stage", sorted(set(Stage) - {Stage.Deleting}))
def test_deletion_in_another_stage_is_delayed(stage: Stage) -> None:
    assert needed(State.Idle, AWAKE, stage) == "its deletion is not in force yet"
