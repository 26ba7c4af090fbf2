"""Tests of the plan of each state: scale, route, release, deadline."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.app import sample_source
from reconciler.core import events
from reconciler.core.record import Record, State
from reconciler.core.spec import Spec
from reconciler.envoy.prometheus.settings import PrometheusSettings
from reconciler.plan import AtLeast, Deadline, Plan, Route, Zero, plan

SPEC = Spec(name="web", idle_after=300, wake_timeout=60, drain_timeout=30)


def a_record(state: State, **known: Any) -> Record:
    return replace(Record(state, 1000.0, "", 3, "127.64.0.7:18001"), **known)


def test_plan_asleep_scales_to_zero_and_holds() -> None:
    assert plan(a_record(State.ScaledToZero), SPEC, 1001) == Plan(Zero(), Route.HOLD, release=False, deadline=None)


def test_plan_asleep_after_zero_does_not_scale() -> None:
    planned = plan(a_record(State.ScaledToZero, zeroed=True), SPEC, 1001)
    assert planned == Plan(None, Route.HOLD, release=False, deadline=None)


def test_plan_waking_restores_replicas_and_releases() -> None:
    deadline = Deadline(1060, events.WakeTimedOut)
    assert plan(a_record(State.Waking), SPEC, 1001) == Plan(AtLeast(3), Route.HOLD, release=True, deadline=deadline)


def test_plan_waking_uses_configured_replicas() -> None:
    assert plan(a_record(State.Waking), replace(SPEC, replicas=2), 1001).scale == AtLeast(2)


def test_plan_active_does_not_scale() -> None:
    assert plan(a_record(State.Active), SPEC, 1001) == Plan(None, Route.PODS, release=True, deadline=None)


def test_plan_idle_adds_a_deadline_to_active() -> None:
    deadline = Deadline(1300, events.IdleElapsed)
    assert plan(a_record(State.Idle), SPEC, 1001) == Plan(None, Route.PODS, release=True, deadline=deadline)
    assert plan(a_record(State.Idle), SPEC, 5000).deadline == deadline


@pytest.mark.parametrize("spec", [replace(SPEC, paused=True), replace(SPEC, departing=True)])
def test_plan_idle_and_paused_or_deleted_has_no_deadline(spec: Spec) -> None:
    assert plan(a_record(State.Idle), spec, 1001).deadline is None


def test_plan_draining_holds_without_scaling() -> None:
    deadline = Deadline(1030, events.DrainTimedOut)
    assert plan(a_record(State.Draining), SPEC, 1001) == Plan(None, Route.HOLD, release=False, deadline=deadline)


def test_plan_draining_adds_sample_lag_to_deadline() -> None:
    """If Prometheus scrapes every minute, the evidence for an end of the drain may be a minute late."""
    slow = sample_source.pace(1.0, PrometheusSettings("http://prometheus:9090", scrape_interval=60, timeout=5))
    deadline = plan(a_record(State.Draining), SPEC, 1001, slow.lag).deadline
    assert deadline
    assert deadline.at >= a_record(State.Draining).since + SPEC.drain_timeout + 60
    assert sample_source.pace(1.0, None).lag == 0, "Envoy's admin port has the present counters"


@pytest.mark.parametrize(("now", "due"), [(1000, 1060), (1059.9, 1060), (1060, 1120), (1061, 1120), (4242, 4300)])
def test_plan_stalled_wake_repeats_its_deadline(now: float, due: float) -> None:
    assert plan(a_record(State.Waking, stalled="no image"), SPEC, now).deadline == Deadline(due, events.WakeTimedOut)


@given(
    since=st.floats(1.7e9, 1.9e9),
    timeout=st.floats(0.05, 7200),
    rounds=st.integers(0, 20),
)
def test_plan_waking_deadline_is_in_the_future(since: float, timeout: float, rounds: int) -> None:
    spec, record = replace(SPEC, wake_timeout=timeout), a_record(State.Waking, since=since)
    now = since
    for _ in range(rounds + 1):
        deadline = plan(record, spec, now).deadline
        assert deadline is not None
        assert now < deadline.at <= now + 2 * timeout
        now = deadline.at


def test_plan_with_clock_set_back_keeps_deadline() -> None:
    assert plan(a_record(State.Waking), SPEC, 10).deadline == Deadline(1060, events.WakeTimedOut)
