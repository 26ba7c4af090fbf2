"""The effects of time that passes in a simulated world."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.fakes.simulation.lease import MARGIN
from tests.fakes.simulation.peers import NOTICE
from tests.fakes.simulation.replica import DETACH_AFTER, ENVOY_RETURNS, Replica

if TYPE_CHECKING:
    from tests.fakes.simulation.world import World


def apply_elapsed(world: World) -> None:
    """Refuse clients that were held for too long, and apply the timeouts of a cluster."""
    for client in world.held():
        if world.now > client.arrived + world.original.hold_timeout:
            world.end(client, "hold timed out")
    if not world.is_cluster:
        return
    world.peers.notice_cuts()
    for replica in world.replicas.values():
        sent = replica.backend.sent
        if sent is not None and world.now - sent >= MARGIN:
            replica.zero_arrives()
        if not replica.is_frozen:
            _notice_lost(world, replica)
        elif world.now - replica.frozen_at >= NOTICE:
            world.disconnect_proxies(replica.name)
    _reconnect(world)


def _notice_lost(world: World, replica: Replica) -> None:
    """Let a replica forget members that are gone, and continue alone once it has had no leader for long."""
    replica.replication.members.forget()
    is_alone = replica.link is None and not replica.leads and world.now - replica.lost_at >= DETACH_AFTER
    if is_alone and not replica.engine.leadership.detached:
        replica.engine.detach()


def _reconnect(world: World) -> None:
    """Connect Envoys and holders that have lost their replica to any other."""
    for name, envoy in world.envoys.items():
        holder = world.holders[name]
        for replica in world.replicas:
            if envoy.up and envoy.at is None and world.now - envoy.lost_at >= ENVOY_RETURNS:
                world.envoy_joins(name, replica)
            if holder.up and holder.at is None and world.now - holder.lost_at >= ENVOY_RETURNS:
                world.holder_joins(name, replica)
