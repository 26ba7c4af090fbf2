"""Tests of rollouts: the samples and reports on which a program in use is replaced."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reconciler.core.judge import SETTLE_SECONDS, Observed
from reconciler.core.lifecycle import Block, Stage
from reconciler.core.record import Record, State
from reconciler.core.spec import Spec
from reconciler.core.traffic import Counters, EnvoyReading, Sample
from reconciler.engine.engine import Engine
from reconciler.engine.lifecycles import Lifecycles
from reconciler.engine.service import ManagedService
from reconciler.ports.clock import Clock
from tests.fakes.simulation.world import World

SPEC = Spec(name="web", idle_after=10, drain_timeout=5)
ACTIVE = Record(State.Active, 0.0, "", 1, "127.64.0.1:1")


class Parts(Engine):
    """The engine and the programs of one service: they note their calls."""

    def __init__(self, service: ManagedService) -> None:
        self.services = {service.spec.name: service}
        self.calls: list[str] = []
        self.is_outdated = True

    def outdated(self) -> frozenset[str]:
        """Return the services that run an earlier program."""
        return frozenset({"web"} if self.is_outdated else ())

    def block(self, name: str, block: Block) -> None:
        """Withdraw or restore endpoints."""
        self.calls.append({Block.Marked: "withdraw", Block.Lifted: "restore"}[block])

    def restart(self, service: str) -> None:
        """Replace the program."""
        self.calls.append("restart")


class Scene:
    """One service in use, whose program is outdated at second 0."""

    def __init__(self, spec: Spec = SPEC) -> None:
        self.now, self.set_by = 0.0, 0.0
        self.service = ManagedService(spec, ACTIVE)
        self.parts, envoys = Parts(self.service), frozenset({"envoy"})
        self.lifecycles = Lifecycles(
            Clock(lambda: self.now + self.set_by, lambda: self.now), self.parts, lambda: envoys, self.parts
        )
        self.sample(0, connections=3)

    @property
    def stage(self) -> Stage:
        return self.lifecycles.stage("web")

    def sample(self, at: float, connections: int | None) -> list[str]:
        """Apply a sample of that second with some open connections, or None without Envoy; return all calls so far."""
        self.now = at
        self.lifecycles.before_sample()
        counted = {"web": Counters(active_connections=connections or 0)}
        readings = {} if connections is None else {"envoy": EnvoyReading(at, counted)}
        assert not self.lifecycles.sampled(Sample(at, readings))
        return self.parts.calls

    def sees(self, held: int | None, relayed: int | None = 0, acked_at: float | None = 10.5) -> None:
        self.service.seen = replace(Observed(), held=held, relayed=relayed, route_acked_at=acked_at)


def test_rollout_of_never_idle_service_begins_after_idle_after() -> None:
    scene = Scene()
    assert scene.sample(9, connections=3) == []
    assert scene.sample(10, connections=3) == ["withdraw"]


def test_rollout_of_paused_or_sleeping_service_waits() -> None:
    assert Scene(replace(SPEC, paused=True)).sample(100, connections=3) == []
    scene = Scene()
    scene.service.record = replace(ACTIVE, state=State.ScaledToZero)
    assert scene.sample(100, connections=0) == []


def test_rollout_replaces_program_when_every_client_is_held() -> None:
    scene = Scene()
    scene.sample(10, connections=3)
    scene.sees(held=2)
    assert scene.sample(11, connections=3) == ["withdraw"], "one is still connected to the earlier program"
    scene.sees(held=3)
    assert scene.sample(12, connections=3) == ["withdraw", "restart"]
    stage = scene.stage
    assert stage is Stage.Replacing
    assert scene.sample(99, connections=3) == ["withdraw", "restart"], "the earlier program is still ending"
    scene.parts.is_outdated = False
    assert scene.sample(100, connections=3) == ["withdraw", "restart", "restore"]
    assert scene.stage is Stage.Current


def test_rollout_with_unknown_usage_is_postponed() -> None:
    scene = Scene()
    scene.sample(10, connections=3)
    scene.sees(held=3, acked_at=None)
    scene.sample(11, connections=3)
    scene.sees(held=3, relayed=1)
    scene.sample(12, connections=3)
    scene.sees(held=None, relayed=None)
    scene.sample(13, connections=0)
    scene.sees(held=3)
    assert scene.sample(14, connections=None) == ["withdraw"]
    assert scene.sample(15, connections=4) == ["withdraw", "restore"]
    assert scene.sample(24, connections=4) == ["withdraw", "restore"]
    assert scene.sample(25, connections=4) == ["withdraw", "restore", "withdraw"]


def test_rollout_is_postponed_before_clients_are_refused() -> None:
    scene = Scene(replace(SPEC, hold_timeout=4))
    scene.sample(10, connections=3)
    scene.sees(held=2)
    assert scene.sample(11, connections=3) == ["withdraw"]
    assert scene.sample(12, connections=3) == ["withdraw", "restore"]


def test_rollout_after_clock_change_keeps_its_timing() -> None:
    scene = Scene()
    scene.set_by = 3600.0
    assert scene.sample(9, connections=3) == []
    assert scene.sample(10, connections=3) == ["withdraw"]
    scene.set_by = -3600.0
    scene.sees(held=3, relayed=1)
    assert scene.sample(14, connections=3) == ["withdraw"]
    assert scene.sample(15, connections=3) == ["withdraw", "restore"]


def test_rollout_ends_if_the_new_program_runs_already() -> None:
    scene = Scene()
    scene.sample(10, connections=3)
    scene.parts.is_outdated = False
    assert scene.sample(11, connections=3) == ["withdraw", "restore"]
    assert scene.stage is Stage.Current


def test_removal_during_rollout_waits_for_work_in_flight() -> None:
    scene = Scene()
    scene.sample(10, connections=3)
    scene.lifecycles.configure([])
    assert scene.lifecycles.removed == {"web": SPEC}, "it has no usable endpoint, but clients"
    assert scene.parts.calls == ["withdraw"]


# With the real engine


def in_use() -> World:
    """Return a world in which a client uses the service and its program has just been withdrawn."""
    world = World(Spec(name="web", idle_after=6, wake_timeout=5, drain_timeout=4, hold_timeout=60))
    world.all_goes_well(2, finishing=True)
    world.arrive("a", False)
    world.all_goes_well(3, finishing=True)
    world.arrive("a", False)
    world.workload.change_program()
    while world.replica.lifecycles.stage("web") is not Stage.Withdrawn:
        world.all_goes_well(1, finishing=False)
        assert world.now < 1_000_030.0
    return world


def causes(world: World) -> list[tuple[str, State]]:
    return [(transition.event, transition.target) for transition in world.transitions]


def test_rollout_in_use_holds_new_clients_for_new_program() -> None:
    world = in_use()
    (earlier,), ((pod, _),) = world.served(), world.workload.pods.items()
    assert causes(world)[-1] == ("RolloutStarted", State.Waking)
    world.all_goes_well(1, finishing=False)
    world.arrive("b", False)
    assert world.held()
    world.finish(earlier)
    world.all_goes_well(3, finishing=False)
    assert earlier.end == "served"
    assert world.clients[-1].pod not in (None, pod)
    assert world.replica.lifecycles.stage("web") is Stage.Current
    assert causes(world)[-1] == ("Ready", State.Active)


def test_rollout_with_long_request_returns_to_earlier_program() -> None:
    world = in_use()
    ((pod, _),) = world.workload.pods.items()
    world.all_goes_well(1, finishing=False)
    world.arrive("b", False)
    world.all_goes_well(4, finishing=False)
    assert world.replica.lifecycles.stage("web") is Stage.Outdated
    assert {client.pod for client in world.served()} == {pod}
    assert not world.held()
    assert causes(world)[-1] == ("Ready", State.Active)


def test_crash_during_rollout_continues_with_new_program() -> None:
    world = in_use()
    world.all_goes_well(1, finishing=False)
    world.arrive("b", False)
    world.workload.crash()
    world.all_goes_well(2, finishing=False)
    assert world.clients[-1].pod
    assert not world.workload.outdated()
    assert world.replica.lifecycles.stage("web") is Stage.Current


def test_restart_during_rollout_serves_held_clients() -> None:
    world = in_use()
    world.all_goes_well(1, finishing=False)
    world.arrive("b", False)
    world.restart()
    world.all_goes_well(2, finishing=False)
    assert not world.held()
    assert {client.end for client in world.clients} <= {None, "served"}


@pytest.mark.parametrize("seconds", [0.0, 0.05, SETTLE_SECONDS / 2])
def test_rollout_early_sample_cuts_no_client(seconds: float) -> None:
    """A worker of Envoy uses the earlier route for a moment after the acknowledgement."""
    world = in_use()
    for client in world.served():
        world.finish(client)
    for part in ("envoy a", "envoy b", "holder"):
        world.parts()[part]()
    world.passes(seconds)
    world.replica.take_sample()
    world.arrive("a", lagging_worker=True)
    world.replica.deliver_sample()
    world.workload.replace_program()
    assert [client.pod for client in world.served()] == list(world.workload.pods)
    world.all_goes_well(5, finishing=True)
    assert world.clients[-1].end == "served"
    assert not world.workload.outdated()
