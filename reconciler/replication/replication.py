"""Replication without its streams, for one replica in either role. No I/O: `leader` and `follower` carry messages.

The engine works with all replicas through three ports: `router`, `holders`, and `Replicas`, which is implemented here.
While this replica follows, its engine sees its own Envoys and holders only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from reconciler.core.reasons import Unknown
from reconciler.core.record import Record
from reconciler.ports.holders import Holders, HoldStatus
from reconciler.ports.holders import Report as HeldReport
from reconciler.ports.router import Router, RouteState
from reconciler.replication.cluster_adapters import ClusterHolders, ClusterRouter, RecordUpdates
from reconciler.replication.fleet import FollowerState, Membership, ReplicaContext
from reconciler.replication.messages import MAX_TEXT_LENGTH, FollowerMessage, Report, shortened


class ReplicaEngine(Protocol):
    """The engine of this replica."""

    def routed(self, state: RouteState, /) -> None: ...

    def held(self, held: HoldStatus, /) -> None: ...

    def record_progress(self, name: str) -> tuple[bool, str] | None: ...

    def adopt(self, name: str, record: Record | None, fence: bool = False, cause: str = "", /) -> None: ...

    def detach(self) -> None: ...

    def lead(self, since: float, /) -> None: ...

    def follow(self) -> None: ...


class EnvoyFaults:
    """The errors with which Envoys reject services: of this replica's Envoys, and as leader of all replicas'."""

    def __init__(self, members: Membership) -> None:
        self._members = members
        self.own: Mapping[str, str] = {}
        """The errors of this replica's Envoys."""
        self.on_change: list[Callable[[], None]] = []
        """Called when the errors changed."""

    def all(self) -> Mapping[str, str]:
        """Return the errors of the Envoys of all replicas as leader, else of this one's."""
        followers = self._members.ledger.followers.values() if self._members.leads else ()
        theirs = {
            name: message for follower in followers if follower.connected for name, message in follower.faults.items()
        }
        return {**theirs, **self.own}

    def found(self, faults: Mapping[str, str]) -> None:
        """Take the errors of this replica's Envoys."""
        self.own = faults
        self.notify()

    def notify(self) -> None:
        """Report the errors, which may have changed."""
        for notify in self.on_change:
            notify()


class Replication:
    """The view of one replica. It starts as a follower."""

    def __init__(self, context: ReplicaContext) -> None:
        self._context = context
        self.members = Membership(context)
        self.updates = RecordUpdates()
        self.router = ClusterRouter(self.members, self.updates)
        self.holders = ClusterHolders(self.members, self.updates, self.router)
        self.faults = EnvoyFaults(self.members)
        self.members.on_change = self._notify_all

    def attach(
        self, engine: ReplicaEngine, own_router: Router, own_holders: Holders, held: HeldReport | None = None
    ) -> None:
        """Set the engine, this replica's own adapters, and what receives statuses for the engine. Call it first."""
        self.engine = engine
        self.router.attach(engine.routed, own_router)
        self.holders.attach(held or engine.held, own_holders)

    # Port of the engine

    def share(self, service: str, record: Record | None, fence: bool, cause: str = "") -> RouteState | None:
        self.updates.send(service, record, fence, cause)
        if record is None or not self.members.ledger.followers:
            return None
        return self.router.renew(service)

    def unknown(self) -> Unknown | None:
        """Return why no service may be scaled to zero now, or None if it may."""
        return self.members.unknown()

    # Roles

    def lead(self, since: float) -> None:
        """Start a term that began at `since`, in `ticks`. Call it before the engine's `lead`."""
        self.updates.latest.clear()
        self.members.lead(since)
        self._notify_all()
        self.faults.notify()

    def follow(self) -> None:
        """End the term. Call it before the engine's `follow`."""
        self.members.follow()
        self.updates.latest.clear()
        self._notify_all()

    # As leader: messages of followers

    def remove_follower(self, replica: str, follower: FollowerState) -> None:
        """Mark a follower whose stream ended as disconnected."""
        if self.members.remove_follower(replica, follower):
            self.faults.notify()

    def receive(self, replica: str, follower: FollowerState, message: FollowerMessage) -> None:
        """Take a follower's message, unless it has another stream. Ignore reports on updates that were never sent."""
        if not self.members.is_current(replica, follower):
            return
        if message.fleet is not None:
            self.members.set_connected(replica, message.fleet)
        if message.faults is not None:
            follower.faults = message.faults
            self.faults.notify()
        for report in filter(self.updates.was_sent, message.reports):
            follower.add_report(shortened(report), self._context.clock.now())
            self.holders.notify(report.service)
            self.router.notify(report.service)

    # As follower: reports to the leader

    def report(self, service: str) -> Report | None:
        """Return the report on the last update of a service, or None if there is none."""
        update, progress = self.updates.latest.get(service), self.engine.record_progress(service)
        if update is None or progress is None:
            return None
        held = self.holders.own(service)
        is_in_force, waiting_for = progress
        return Report(
            service,
            update.version,
            is_in_force,
            waiting_for[:MAX_TEXT_LENGTH],
            held.held,
            held.relayed,
            held.released,
            held.refused,
            held.gone,
            held.held_since,
            held.peer,
            held.first_byte_at,
            dict(held.refused_by),
            held.via,
        )

    def _notify_all(self) -> None:
        for service in self.router.services():
            self.holders.notify(service)
            self.router.notify(service)
