"""Tests of services whose target zenvoy may not read: they count as awake."""

from __future__ import annotations

from reconciler.core.reasons import Diagnosis
from reconciler.core.record import State
from reconciler.core.spec import Spec
from reconciler.ports.backend import WorkloadStatus
from tests.fakes.simulation.clients import NAME
from tests.fakes.simulation.world import World

SPEC = Spec(name=NAME, replicas=1, idle_after=5, wake_timeout=50, drain_timeout=60, hold_timeout=600)
FORBIDDEN = Diagnosis.parse("Forbidden: zenvoy may not watch rollouts")


class Unseen(World):
    """A world whose backend may not read the target until it is `visible`."""

    visible = False

    def workload_status(self) -> WorkloadStatus:
        return super().workload_status() if self.visible else WorkloadStatus(NAME, None, (), FORBIDDEN)


def test_unseen_service_is_active_and_stays_active() -> None:
    world = Unseen(SPEC)
    assert world.state is State.Active
    world.all_goes_well(60, finishing=True)
    assert world.state is State.Active
    assert [move.target for move in world.transitions] == []
    assert world.service.ordered and world.service.ordered.diagnosis == FORBIDDEN, "held clients get the reason"


def test_unseen_service_at_zero_later_is_asleep() -> None:
    world = Unseen(SPEC)
    world.all_goes_well(10, finishing=True)
    world.visible = True
    world.replica.report_workload()
    assert world.state is State.ScaledToZero


def test_unseen_service_after_observation_is_kept_awake() -> None:
    world = Unseen(SPEC)
    world.visible = True
    world.workload.scale_to(1, "another controller")
    world.all_goes_well(3, finishing=True)
    before = world.state
    assert before is State.Idle
    world.visible = False
    world.all_goes_well(30, finishing=True)
    assert world.state is State.Active
    assert world.record and world.record.reason == f"the state of the workload is unknown: {FORBIDDEN}"
