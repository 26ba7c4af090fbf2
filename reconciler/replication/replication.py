"""Replication without its streams, for one replica in either role. No I/O: `leader` and `follower` carry messages.

The engine works with all replicas through three ports: `ClusterRouter`, `ClusterHolders`, and `Replicas`, which
`Replication` implements. Routes and orders are passed to this replica's own router and holders. As leader, a route is
acknowledged once every replica has acknowledged it, and the connections of every replica are added up; as follower,
those of this one count. A replica without Envoys or holders has nothing to wait for, but all together need one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from reconciler.core.reasons import Unknown
from reconciler.core.record import Record
from reconciler.ports.holders import Holders, HoldOrder, HoldStatus, added, wait_order
from reconciler.ports.holders import Report as HeldReport
from reconciler.ports.replicas import RecordProgress
from reconciler.ports.router import Report as RouteReport
from reconciler.ports.router import Router, RouteState
from reconciler.replication.fleet import FollowerState, Membership, ReplicaContext
from reconciler.replication.messages import MAX_TEXT_LENGTH, FollowerMessage, RecordUpdate, Report, shortened


class ReplicaEngine(Protocol):
    """The engine of this replica."""

    def routed(self, state: RouteState, /) -> None: ...

    def held(self, held: HoldStatus, /) -> None: ...

    def record_progress(self, name: str) -> RecordProgress | None: ...

    def adopt(self, name: str, record: Record | None, fence: bool = False, cause: str = "", /) -> None: ...

    def detach(self) -> None: ...

    def lead(self, since: float, /) -> None: ...

    def follow(self) -> None: ...


class RecordUpdates:
    """The updates of records: numbered and sent as leader; received as follower, which reports on them."""

    def __init__(self) -> None:
        self.latest: dict[str, RecordUpdate] = {}
        """By service. A leader has versions of its own, so all are removed when the leader changes."""
        self._version = 0
        self.on_update: Callable[[str], None] = lambda service: None
        """Called when the leader's record of a service changed."""
        self.on_report: Callable[[str], None] = lambda service: None
        """Called when this follower's report on a service changed."""

    def send(self, service: str, record: Record | None, fence: bool, cause: str) -> None:
        """Make a new update, as leader; None if the service is gone."""
        self._version += 1
        if record is None:
            self.latest.pop(service, None)
        else:
            self.latest[service] = RecordUpdate(service, self._version, record, fence, cause)
        self.on_update(service)

    def add(self, update: RecordUpdate) -> None:
        """Take an update before the engine adopts it. Its version is not in force until the engine has adopted it."""
        self.latest[update.service] = update
        self.on_report(update.service)

    def was_sent(self, report: Report) -> bool:
        """Return whether the update of a report may have been sent."""
        return report.service in self.latest and report.version <= self._version


class ClusterRouter:
    """The routes of all replicas."""

    def __init__(self, members: Membership, updates: RecordUpdates) -> None:
        self._members, self._updates = members, updates
        self._own: dict[str, RouteState] = {}
        """The states that this replica's router reported."""
        self._routed_at: dict[str, float] = {}
        """Time of the last change of a route; from then on it is in force at a replica without Envoys."""
        self._notified: dict[str, RouteState] = {}

    def attach(self, report: RouteReport, own_router: Router) -> None:
        """Set this replica's own router, and what receives changed states. Call it first."""
        self._report, self._own_router = report, own_router

    def route(self, service: str, endpoints: tuple[str, ...], held: bool) -> RouteState:
        self._routed_at[service] = self._members.context.clock.now()
        if own := self._own_router.route(service, endpoints, held):
            self._own[service] = own
        if not self._members.leads:
            self._updates.on_report(service)
        return self.renew(service)

    def envoys(self) -> frozenset[str]:
        """Return the node ids that a complete sample must have."""
        return self._members.envoys()

    def away(self) -> frozenset[str]:
        """Return those of them that are not connected to any replica."""
        return self._members.away()

    def routed(self, state: RouteState) -> None:
        """Take the state of a route from this replica's router."""
        self._own[state.service] = state
        self.notify(state.service)

    def services(self) -> list[str]:
        """Return the services with a route."""
        return list(self._routed_at)

    def renew(self, service: str) -> RouteState:
        """Return the state of a route after a change, and count the engine as notified of it."""
        state = self._notified[service] = self._state(service)
        return state

    def forget(self, service: str) -> None:
        """Drop a service that is gone."""
        for known in (self._own, self._routed_at, self._notified):
            known.pop(service, None)

    def notify(self, service: str) -> None:
        """Report a changed state to the engine, and any state to the leader."""
        if service not in self._routed_at:
            return
        state = self._state(service)
        if self._notified.get(service) != state:
            self._notified[service] = state
            self._report(state)
        if not self._members.leads:
            self._updates.on_report(service)

    def _state(self, service: str) -> RouteState:
        mine = self._own_state(service)
        if not self._members.leads:
            return mine
        ledger = self._members.ledger
        known, away = ledger.envoys.known, ledger.envoys.away
        if not known or away:
            return RouteState(service, None, f"Envoy {', '.join(sorted(away))}" if away else "no Envoy is connected")
        update, followers = self._updates.latest.get(service), ledger.followers
        if not followers or update is None:
            return mine
        return slowest_route(mine, followers, update.version)

    def _own_state(self, service: str) -> RouteState:
        if not self._members.fleet.envoys:
            return RouteState(service, self._routed_at.get(service), "")
        return self._own.get(service) or RouteState(service, None, "an Envoy")


class ClusterHolders:
    """The held and relayed connections of all replicas."""

    def __init__(self, members: Membership, updates: RecordUpdates, router: ClusterRouter) -> None:
        self._members, self._updates, self._router = members, updates, router
        self._own: dict[str, HoldStatus] = {}
        """The status that this replica's holders reported."""
        self._ordered_at: dict[str, float] = {}
        """Time of the last order; from then on it is in force at a replica without holders."""
        self._notified: dict[str, HoldStatus] = {}

    def attach(self, report: HeldReport, own_holders: Holders) -> None:
        """Set this replica's own holders, and what receives changed statuses. Call it first."""
        self._report, self._own_holders = report, own_holders

    def order(self, service: str, order: HoldOrder | None) -> HoldStatus | None:
        if order is None:
            for known in (self._own, self._ordered_at, self._notified):
                known.pop(service, None)
            self._router.forget(service)  # this is how the engine removes a service
            self._own_holders.order(service, None)
            return None
        self._ordered_at[service] = self._members.context.clock.now()
        if own := self._own_holders.order(service, order):
            self._own[service] = own
        if not self._members.leads:
            self._updates.on_report(service)
        held = self._notified[service] = self._status(service)
        return held

    def held(self, held: HoldStatus) -> None:
        """Take the held connections of a service from this replica's holders."""
        self._own[held.service] = held
        self.notify(held.service)

    def own(self, service: str) -> HoldStatus:
        """Return the connections of a service in this replica's holders."""
        if not self._members.fleet.holders:
            return HoldStatus(service, 0, 0, self._ordered_at.get(service))
        return self._own.get(service) or HoldStatus(service, None, None)

    def notify(self, service: str) -> None:
        """Report a changed status to the engine, and any status to the leader."""
        if service not in self._ordered_at:
            return
        held = self._status(service)
        if self._notified.get(service) != held:
            self._notified[service] = held
            self._report(held)
        if not self._members.leads:
            self._updates.on_report(service)

    def _status(self, service: str) -> HoldStatus:
        mine = self.own(service)
        if not self._members.leads:
            return mine
        ledger = self._members.ledger
        reports = [follower.reports.get(service) for follower in ledger.followers.values()]
        complete = bool(ledger.holders.connected) and not ledger.holders.away
        return mine if complete and not reports else total_held(mine, reports, complete)


def total_held(mine: HoldStatus, reports: Sequence[Report | None], complete: bool) -> HoldStatus:
    """Return the held and relayed connections of all replicas.

    If a report is missing, the counts are unknown; but held connections that are known to exist are counted.
    """
    known = [report for report in reports if report is not None]
    complete = complete and len(known) == len(reports) and mine.held is not None and mine.relayed is not None
    complete = complete and all(report.held is not None and report.relayed is not None for report in known)
    parts: list[HoldStatus | Report] = [mine, *known]
    held = sum(part.held or 0 for part in parts)
    began = [part for part in parts if part.held_since]
    first = min(began, key=lambda part: wait_order(part.held, part.held_since), default=None)
    return replace(
        mine,
        held=held if complete or held else None,
        relayed=sum(part.relayed or 0 for part in parts) if complete else None,
        released=sum(part.released for part in parts),
        refused=sum(part.refused for part in parts),
        gone=sum(part.gone for part in parts),
        held_since=first.held_since if first else None,
        peer=first.peer if first else None,
        via=first.via if first else None,
        first_byte_at=max((part.first_byte_at for part in parts if part.first_byte_at), default=None),
        refused_by=added(part.refused_by for part in parts),
    )


def slowest_route(mine: RouteState, followers: Mapping[str, FollowerState], version: int) -> RouteState:
    """Return the route as acknowledged when the last replica had applied `version`, or with a replica that has not."""
    if mine.acked_at is None:
        return mine
    at = mine.acked_at
    for replica, follower in followers.items():
        report = follower.reports.get(mine.service)
        if report is None or report.version != version:
            return replace(mine, acked_at=None, waiting_for=f"replica {replica}")
        if not report.in_force:
            return replace(mine, acked_at=None, waiting_for=f"{report.waiting_for or '?'} (of replica {replica})")
        at = max(at, follower.in_force_since[mine.service])
    return replace(mine, acked_at=at)


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

    def remove_follower(self, follower: FollowerState) -> None:
        """Mark a follower whose stream ended as disconnected, unless it has another stream."""
        if self.members.leads and self.members.is_current(follower):
            self.members.remove_follower(follower)
            self.faults.notify()

    def receive(self, follower: FollowerState, message: FollowerMessage) -> None:
        """Take a follower's message, unless it has another stream. Ignore reports on updates that were never sent."""
        if not self.members.is_current(follower):
            return
        if message.fleet is not None:
            self.members.set_connected(follower.replica, message.fleet)
        if message.faults is not None:
            follower.faults = message.faults
            self.faults.notify()
        for report in filter(self.updates.was_sent, message.reports):
            follower.add_report(shortened(report), self.members.context.clock.now())
            self.holders.notify(report.service)
            self.router.notify(report.service)

    # As follower: reports to the leader

    def report(self, service: str) -> Report | None:
        """Return the report on the last update of a service, or None if there is none."""
        update, progress = self.updates.latest.get(service), self.engine.record_progress(service)
        if update is None or progress is None:
            return None
        held = self.holders.own(service)
        return Report(
            service,
            update.version,
            progress.in_force,
            progress.waiting_for[:MAX_TEXT_LENGTH],
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
