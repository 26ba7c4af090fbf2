"""This replica's role, and the Envoys and holders of all replicas as far as it knows them. No I/O.

A follower knows its own Envoys and holders only; a leader, in `ledger`, those of every replica. A replica that
vanished, or that should exist and never connected, makes all usage unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from reconciler.core.reasons import Reason, Unknown
from reconciler.ports.replicas import Connected
from reconciler.replication.fleet import FleetLedger, FollowerState, ReplicaContext
from reconciler.replication.messages import Fleet


class Membership:
    """The members that this replica knows in its role. It starts as a follower."""

    def __init__(self, context: ReplicaContext) -> None:
        self.context = context
        self.leads = False
        self.fleet = Fleet()
        """Envoys and holders that are connected to this replica."""
        self.memory = Fleet()
        """The fleet of the last leader."""
        self.ledger = FleetLedger(context, 0.0, Fleet())
        """The fleet of this term, as leader."""
        self.on_fleet: list[Callable[[], None]] = []
        """Called when the fleet changed."""
        self.on_change: Callable[[], None] = lambda: None
        """Called after `on_fleet`, if the states of routes or held connections may have changed with the fleet."""

    def lead(self, since: float) -> None:
        """Start a term that began at `since`, in `ticks`."""
        self.leads = True
        self.ledger = FleetLedger(self.context, since, self.memory)
        self._set_connected(self.context.me, self.fleet)

    def follow(self) -> None:
        """End the term."""
        if self.leads:
            self.memory = self.ledger.fleet()
        self.leads = False

    def came_or_went(self, envoys: Mapping[str, str], holders: Iterable[str]) -> None:
        """Take all Envoys (with the addresses of their statistics) and holders connected here, before their reports."""
        fleet = Fleet(dict(envoys), tuple(sorted(holders)))
        if fleet == self.fleet:
            return
        self.fleet = fleet
        self._set_connected(self.context.me, fleet)

    def add_follower(self, replica: str, fleet: Fleet) -> FollowerState:
        """Add a follower whose stream starts; it replaces an earlier stream of the same replica."""
        follower = self.ledger.followers[replica] = FollowerState()
        self._set_connected(replica, fleet)
        self.on_change()
        return follower

    def remove_follower(self, replica: str, follower: FollowerState) -> bool:
        """Mark a follower whose stream ended as disconnected; return False if it has another stream."""
        if not (self.leads and self.is_current(replica, follower)):
            return False
        follower.connected = False
        follower.reports.clear()
        self._set_connected(replica, Fleet())
        self.on_change()
        return True

    def set_follower_fleet(self, replica: str, follower: FollowerState, fleet: Fleet) -> None:
        """Take the Envoys and holders that are connected to a follower."""
        if self.is_current(replica, follower):
            self._set_connected(replica, fleet)

    def is_current(self, replica: str, follower: FollowerState) -> bool:
        """Return whether this is the latest stream of the replica."""
        return self.ledger.followers.get(replica) is follower

    def forget(self) -> None:
        """Drop members that are gone for good, if this replica leads. Call it regularly."""
        if self.leads and self.context.valid() and self.ledger.forget():
            self._notify_fleet()  # the next leader would wait for them again
            self.on_change()

    def unknown(self) -> Unknown | None:
        """Return why no service may be scaled to zero now, or None if it may."""
        if not self.leads or not self.context.valid():
            return Unknown(Reason.NOT_LEADER, "this replica does not lead")
        return self.ledger.unknown()

    def envoys(self) -> frozenset[str]:
        """Return the node ids that a complete sample must have."""
        return self.ledger.envoys.known if self.leads else frozenset(self.fleet.envoys)

    def away(self) -> frozenset[str]:
        """Return those of them that are not connected to any replica."""
        return self.ledger.envoys.away if self.leads else frozenset()

    def stats(self) -> Mapping[str, str]:
        """Return, by node id, the address of the statistics of each connected Envoy that announces one."""
        return self.ledger.stats()

    def connected(self) -> Connected:
        """Return the connected Envoys and holders: of all replicas as leader, else of this one."""
        if self.leads:
            return Connected(self.ledger.envoys.where(), self.ledger.holders.where())
        me = self.context.me
        return Connected(dict.fromkeys(self.fleet.envoys, me), dict.fromkeys(self.fleet.holders, me))

    def _set_connected(self, replica: str, fleet: Fleet) -> None:
        changed = self.ledger.set_connected(replica, fleet) if self.leads else True
        self._notify_fleet()
        if changed:
            self.on_change()

    def _notify_fleet(self) -> None:
        for notify in self.on_fleet:
            notify()
