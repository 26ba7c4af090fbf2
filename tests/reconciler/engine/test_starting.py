"""Tests of services whose pods are already starting when they are observed for the first time."""

from __future__ import annotations

from reconciler.core.record import State
from reconciler.core.spec import Spec
from reconciler.ports.backend import WorkloadStatus
from tests.fakes.simulation.clients import NAME
from tests.fakes.simulation.world import World

SPEC = Spec(name=NAME, replicas=1, idle_after=5, wake_timeout=50, drain_timeout=60, hold_timeout=600)


class Starting(World):
    """A world with one pod, which has no endpoint until it is `ready`."""

    ready = False

    def workload_status(self) -> WorkloadStatus:
        return WorkloadStatus(NAME, 1, ("10.0.0.1:80",) if self.ready else ())


def test_starting_service_is_waking_without_a_transition() -> None:
    world = Starting(SPEC)
    assert world.state is State.Waking
    assert world.transitions == [], "nothing was lost, so nothing is reported"


def test_starting_service_that_is_ready_is_active() -> None:
    world = Starting(SPEC)
    world.ready = True
    world.replica.report_workload()
    assert world.state is State.Active
    assert [(move.event, move.target) for move in world.transitions] == [("Ready", State.Active)]
    assert world.wakes == [] and world.service.recovers, "no client waited for it"


def test_started_service_that_loses_its_endpoint_reports_it() -> None:
    world = Starting(SPEC)
    for ready in (True, False):
        world.ready = ready
        world.replica.report_workload()
    assert [move.event for move in world.transitions] == ["Ready", "EndpointsLost"]
