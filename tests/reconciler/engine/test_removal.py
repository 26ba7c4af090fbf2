"""Tests of removed services: the samples that end their removal."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.core.judge import Observed
from reconciler.core.lifecycle import CLOSING_SECONDS, Block, Stage
from reconciler.core.spec import Protocol, Spec
from reconciler.core.traffic import Counters, EnvoyReading, Sample
from reconciler.engine.engine import Engine
from reconciler.engine.lifecycles import Lifecycles
from reconciler.engine.service import ManagedService
from reconciler.ports.clock import Clock
from tests.fakes.simulation.clients import Client
from tests.fakes.simulation.world import World

RUNS = Observed(replicas=1, endpoints=("127.0.0.1:9",))
SPEC = Spec(name="web", drain_timeout=30)


class IdleEngine(Engine):
    """An engine with one service, which does nothing."""

    def __init__(self, service: ManagedService) -> None:
        self.services = {service.spec.name: service}

    def block(self, name: str, block: Block) -> None:
        """Withdraw or restore endpoints."""


class Scene:
    """One service that is removed at second 0."""

    def __init__(self, spec: Spec = SPEC, seen: Observed = RUNS) -> None:
        self.now, self.set_by = 0.0, 0.0
        self.envoys = frozenset({"envoy"})
        self.engine = IdleEngine(ManagedService(spec, seen=seen))
        self.lifecycles = Lifecycles(
            Clock(lambda: self.now + self.set_by, lambda: self.now), self.engine, lambda: self.envoys
        )
        self.lifecycles.configure([])
        self.engine.services = {}

    def is_over(self, at: float, counters: Counters | None) -> bool:
        """Return whether a sample of that second ends the removal; None for counters means that Envoy is missing."""
        self.now = at
        readings = {} if counters is None else {"envoy": EnvoyReading(at, {"web": counters})}
        return self.lifecycles.sampled(Sample(at, readings))


def test_removal_of_sleeping_service_ends_at_once() -> None:
    scene = Scene(seen=Observed(replicas=0))
    assert not scene.lifecycles.removed
    assert scene.lifecycles.stage("web") is Stage.Current


def test_removal_of_unobserved_service_is_not_idle() -> None:
    assert Scene(seen=Observed()).lifecycles.removed == {"web": SPEC}


def test_removal_with_held_client_leaves_time_to_refuse_it() -> None:
    assert Scene(seen=Observed(replicas=0, held=1)).lifecycles.removed == {"web": SPEC}


def test_removal_after_clock_change_keeps_its_timeout() -> None:
    scene = Scene()
    scene.set_by = 3600.0
    assert not scene.is_over(29, Counters(requests=1, active_requests=1))
    assert scene.is_over(30, Counters(requests=1, active_requests=1))


def test_removal_ends_after_two_quiet_samples() -> None:
    scene = Scene()
    assert not scene.is_over(CLOSING_SECONDS / 2, Counters(5))
    assert not scene.is_over(1, Counters(5))
    assert scene.is_over(2, Counters(5))
    assert not scene.lifecycles.removed


def test_removal_with_work_in_flight_or_new_use_continues() -> None:
    scene = Scene()
    assert not scene.is_over(1, Counters(5, active_requests=1))
    assert not scene.is_over(2, Counters(5, active_requests=1))
    assert not scene.is_over(3, Counters(6))
    assert scene.is_over(4, Counters(6))


def test_removal_of_tcp_service_waits_for_connections() -> None:
    scene = Scene(Spec(name="web", protocol=Protocol.TCP, drain_timeout=30))
    for second in range(1, 10):
        assert not scene.is_over(second, Counters(connections=3, active_connections=1))
    assert scene.is_over(10, Counters(connections=3))


def test_removal_without_envoy_ends_after_drain_timeout() -> None:
    scene = Scene()
    assert not any(scene.is_over(second, None) for second in range(1, 30))
    assert scene.is_over(30, None)


@pytest.mark.parametrize(("departing", "stage"), [(False, Stage.Current), (True, Stage.Deleting)])
def test_removal_of_service_added_again_is_cancelled(departing: bool, stage: Stage) -> None:
    scene = Scene()
    scene.lifecycles.configure([replace(SPEC, departing=departing)])
    assert not scene.lifecycles.removed
    assert scene.lifecycles.stage("web") is stage
    assert not scene.is_over(60, None)


def test_removal_after_deletion_waits_for_work_in_flight() -> None:
    scene = Scene()
    scene.engine.services = {"web": ManagedService(SPEC, seen=RUNS)}
    scene.lifecycles.configure([replace(SPEC, departing=True)])
    scene.lifecycles.configure([])
    assert scene.lifecycles.stage("web") is Stage.Removed
    scene.engine.services = {}
    assert not scene.is_over(1, Counters(5))
    assert scene.is_over(2, Counters(5))


# With the real engine


def in_use() -> tuple[World, Client]:
    """Return a world with an awake service, and its client, which is connected directly."""
    world = World(Spec(name="web", idle_after=6, wake_timeout=5, drain_timeout=8, hold_timeout=60))
    world.all_goes_well(2, finishing=True)
    world.arrive("a", False)
    world.all_goes_well(3, finishing=True)
    world.arrive("a", False)
    world.all_goes_well(1, finishing=False)
    (client,) = world.served()
    return world, client


def test_removed_service_stops_after_its_last_client() -> None:
    world, client = in_use()
    world.remove()
    world.all_goes_well(4, finishing=False)
    assert (world.workload.replicas, client.end) == (1, None)
    world.finish(client)
    world.all_goes_well(3, finishing=False)
    assert (world.workload.replicas, client.end) == (0, "served")


def test_removed_service_stops_after_drain_timeout() -> None:
    world, client = in_use()
    world.remove()
    world.all_goes_well(9, finishing=False)
    assert (world.workload.replicas, client.end) == (0, "drain timed out")


def test_removed_service_added_again_keeps_its_clients() -> None:
    world, client = in_use()
    world.remove()
    world.all_goes_well(2, finishing=False)
    world.add_again()
    world.all_goes_well(12, finishing=False)
    assert client.end is None
    world.arrive("b", False)
    assert [one.direct for one in world.served()] == [True, True]


def test_removed_service_after_restart_keeps_its_clients() -> None:
    world, client = in_use()
    world.restart()
    world.remove()
    assert (world.workload.replicas, client.end) == (1, None)
