"""The components of the simulated world, each with its action, in an order without faults."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.fakes.simulation.replica import Replica
    from tests.fakes.simulation.world import World

MANY = 9
"""More messages than wait on a peer stream in one second."""
Parts = dict[str, Callable[[], None]]


def machine_parts(world: World) -> Parts:
    """Return the components of one machine."""
    replica, workload = world.replica, world.workload
    return {
        "restarts of pods": workload.start_again,
        "rollout": workload.replace_program,
        "backend": replica.work,
        "readiness": workload.get_ready,
        "reports": replica.report_workload,
        "busy check": replica.answer,
        "start of a": lambda: world.envoy_joins("a", replica.name),
        "start of b": lambda: world.envoy_joins("b", replica.name),
        "envoy a": lambda: world.envoy_obeys("a"),
        "envoy b": lambda: world.envoy_obeys("b"),
        "stream": lambda: world.holder_joins("h", replica.name),
        "holder": world.holder_obeys,
        "releases": world.holder_releases,
    }


def cluster_parts(world: World) -> Parts:
    """Return the components of a cluster."""
    replicas = world.replicas
    parts: Parts = {f"lease {name}": partial(world.lease.elect, one) for name, one in replicas.items()}
    parts |= {f"configuration {name}": replica.observe_configuration for name, replica in replicas.items()}
    parts |= {
        "restarts of pods": world.workload.start_again,
        "rollout": lambda: world.workload.roll_out({client.pod for client in world.living()}),
    }
    parts |= {f"backend {name}": replica.work for name, replica in replicas.items()}
    parts |= {f"zero {name}": replica.zero_arrives for name, replica in replicas.items()}
    parts["readiness"] = world.workload.get_ready
    parts |= {f"reports {name}": partial(_report, replica) for name, replica in replicas.items()}
    parts |= {f"busy check {name}": replica.answer for name, replica in replicas.items()}
    parts["peers down"] = lambda: world.peers.deliver(up=False, many=MANY)
    for index, name in enumerate(world.envoys):
        parts |= _proxy_parts(world, name, list(replicas)[index % len(replicas)])
    parts |= {
        "peers up": partial(report_to_leader, world),
        "finalizer": world.finalize,
    }
    return parts


def _report(replica: Replica) -> None:
    if not replica.is_frozen:
        replica.report_workload()


def _proxy_parts(world: World, name: str, replica: str) -> Parts:
    return {
        f"start of {name}": partial(world.joins, name, replica),
        f"envoy {name}": partial(world.envoy_obeys, name),
        f"holder {name}": partial(world.holder_obeys, name),
        f"releases {name}": partial(world.holder_releases, name),
    }


def report_to_leader(world: World) -> None:
    """Send and deliver the reports of all followers."""
    for replica in world.replicas.values():
        world.peers.flush(replica)
    world.peers.deliver(up=True, many=MANY)
