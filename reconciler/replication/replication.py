"""The routers and holders of all replicas as one, for the engine of the leader.

It stands between the engine and this replica's own router and holders, and implements the engine's ports `Router`,
`Holders` and `Replicas`. While this replica follows, its engine sees its own Envoys and holders only. A replica without
Envoys (or holders) has nothing to wait for, but all replicas together need one. No I/O: `leader` and `follower` carry
records and reports. A replica that vanished, or that should exist and never connected, makes all usage unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from reconciler.core.reasons import Reason, Unknown
from reconciler.core.record import Record
from reconciler.ports.holders import Holders, HoldOrder, HoldStatus
from reconciler.ports.replicas import Connected, RecordProgress
from reconciler.ports.router import Router, RouteState
from reconciler.replication.aggregation import slowest_route, total_held
from reconciler.replication.fleet import FleetLedger, FollowerState, ReplicaContext
from reconciler.replication.messages import MAX_TEXT_LENGTH, Fleet, RecordUpdate, Report


class RecordEngine(Protocol):
    """The engine of this replica."""

    def routed(self, state: RouteState, /) -> None: ...

    def held(self, held: HoldStatus, /) -> None: ...

    def record_progress(self, name: str) -> RecordProgress | None: ...


class Merged:
    """The view of one replica, in either role. It starts as a follower."""

    def __init__(self, context: ReplicaContext) -> None:
        self._context = context
        self.leads = False
        self.fleet = Fleet()
        """Envoys and holders that are connected to this replica."""
        self.memory = Fleet()
        """The fleet of the last leader."""
        self.ledger = FleetLedger(context, 0.0, Fleet())
        """The fleet of this term, as leader."""
        self._version = 0
        self.updates: dict[str, RecordUpdate] = {}
        """The latest update of each service: sent as leader, received as follower."""
        self._routes: dict[str, RouteState] = {}
        self._helds: dict[str, HoldStatus] = {}
        self._routed_at: dict[str, float] = {}
        """Time of the last change of a route; from then on it is in force at a replica without Envoys."""
        self._ordered_at: dict[str, float] = {}
        """The same for orders and holders."""
        self._notified_route: dict[str, RouteState] = {}
        self._notified_held: dict[str, HoldStatus] = {}
        self.on_update: Callable[[str], None] = lambda service: None
        """Called when the leader's record of a service changed."""
        self.on_report: Callable[[str], None] = lambda service: None
        """Called when a follower's report on a service changed."""
        self.on_fleet: list[Callable[[], None]] = []
        """Called when the fleet changed."""
        self.own_faults: Mapping[str, str] = {}
        """By service, the error with which this replica's Envoys reject it."""
        self.on_faults: list[Callable[[], None]] = []
        """Called when the errors of Envoys changed."""

    def attach(self, engine: RecordEngine, own_router: Router, own_holders: Holders) -> None:
        """Set the engine and this replica's own adapters. Call it first."""
        self._engine, self._own_router, self._own_holders = engine, own_router, own_holders

    # The engine's ports

    def route(self, service: str, endpoints: tuple[str, ...], held: bool) -> None:
        self._routed_at[service] = self._context.now()
        self._notified_route.pop(service, None)  # any next state is a change
        self._own_router.route(service, endpoints, held)
        self._notify_route(service)

    def order(self, service: str, order: HoldOrder | None) -> None:
        self._notified_held.pop(service, None)
        if order is None:
            for known in (self._routes, self._helds, self._routed_at, self._ordered_at, self._notified_route):
                known.pop(service, None)
            self._own_holders.order(service, None)
        else:
            self._ordered_at[service] = self._context.now()
            self._own_holders.order(service, order)
            self._notify_held(service)

    def envoys(self) -> frozenset[str]:
        """Return the node ids that a complete sample must have."""
        return self.ledger.envoys.known if self.leads else frozenset(self.fleet.envoys)

    def away(self) -> frozenset[str]:
        """Return those of them that are not connected to any replica."""
        return self.ledger.envoys.away if self.leads else frozenset()

    def share(self, service: str, record: Record | None, fence: bool, cause: str = "") -> RouteState | None:
        self._version += 1
        if record is None:
            self.updates.pop(service, None)
        else:
            self.updates[service] = RecordUpdate(service, self._version, record, fence, cause)
        self.on_update(service)
        if record is None or not self.ledger.followers:
            return None
        state = self._notified_route[service] = self._route(service)
        return state

    def unknown(self) -> Unknown | None:
        if not self.leads or not self._context.valid():
            return Unknown(Reason.NOT_LEADER, "this replica does not lead")
        return self.ledger.unknown()

    def forget(self) -> None:
        """Drop members that are gone for good, if this replica leads. Call it regularly."""
        if self.leads and self._context.valid() and self.ledger.forget():
            for notify in self.on_fleet:  # the next leader would wait for them again
                notify()
            self._notify_all()

    def faults(self) -> Mapping[str, str]:
        """Return, by service, the error with which Envoys reject it; as leader, of the Envoys of all replicas."""
        followers = self.ledger.followers.values() if self.leads else ()
        theirs = {
            name: message for follower in followers if follower.connected for name, message in follower.faults.items()
        }
        return {**theirs, **self.own_faults}

    def stats(self) -> Mapping[str, str]:
        """Return, by node id, the address of the statistics of each connected Envoy that announces one."""
        return self.ledger.stats()

    def connected(self) -> Connected:
        """Return the connected Envoys and holders: of all replicas as leader, else of this one."""
        if self.leads:
            return Connected(self.ledger.envoys.where(), self.ledger.holders.where())
        me = self._context.me
        return Connected(dict.fromkeys(self.fleet.envoys, me), dict.fromkeys(self.fleet.holders, me))

    # This replica's own router and holders

    def routed(self, state: RouteState) -> None:
        """Take the state of a route from this replica's router."""
        self._routes[state.service] = state
        self._notify_route(state.service)

    def held(self, held: HoldStatus) -> None:
        """Take the held connections of a service from this replica's holders."""
        self._helds[held.service] = held
        self._notify_held(held.service)

    def found(self, faults: Mapping[str, str]) -> None:
        """Take, by service, the error with which this replica's Envoys reject it."""
        self.own_faults = faults
        self._notify_faults()

    def set_follower_faults(self, replica: str, follower: FollowerState, faults: dict[str, str]) -> None:
        """Take the errors of a follower's Envoys."""
        if self.ledger.followers.get(replica) is follower:
            follower.faults = faults
            self._notify_faults()

    def _notify_faults(self) -> None:
        for notify in self.on_faults:
            notify()

    def came_or_went(self, envoys: Mapping[str, str], connected_holders: Iterable[str]) -> None:
        """Take all Envoys (with the addresses of their statistics) and holders connected here, before their reports."""
        fleet = Fleet(dict(envoys), tuple(sorted(connected_holders)))
        if fleet == self.fleet:
            return
        self.fleet = fleet
        self._set_connected(self._context.me, fleet)

    # Roles

    def lead(self, since: float) -> None:
        """Start a term that began at `since`, in `ticks`. Call it before the engine's `lead`."""
        self.leads = True
        self.updates.clear()
        self.ledger = FleetLedger(self._context, since, self.memory)
        self._set_connected(self._context.me, self.fleet)
        self._notify_all()
        self._notify_faults()

    def follow(self) -> None:
        """End the term. Call it before the engine's `follow`."""
        if self.leads:
            self.memory = self.ledger.fleet()
        self.leads = False
        self.updates.clear()
        self._notify_all()

    # As leader: messages of followers

    def add_follower(self, replica: str, fleet: Fleet) -> FollowerState:
        """Add a follower whose stream starts; it replaces an earlier stream of the same replica."""
        follower = self.ledger.followers[replica] = FollowerState()
        self._set_connected(replica, fleet)
        self._notify_all()
        return follower

    def remove_follower(self, replica: str, follower: FollowerState) -> None:
        """Mark a follower whose stream ended as disconnected."""
        if self.leads and self.ledger.followers.get(replica) is follower:
            follower.connected = False
            follower.reports.clear()
            self._set_connected(replica, Fleet())
            self._notify_all()
            self._notify_faults()

    def set_follower_fleet(self, replica: str, follower: FollowerState, fleet: Fleet) -> None:
        """Take the Envoys and holders that are connected to a follower."""
        if self.ledger.followers.get(replica) is follower:
            self._set_connected(replica, fleet)

    def add_report(self, replica: str, follower: FollowerState, report: Report) -> None:
        """Take a follower's report. Ignore one on an update that was never sent."""
        if report.service not in self.updates or report.version > self._version:
            return
        if self.ledger.followers.get(replica) is follower:
            follower.add_report(report, self._context.now())
            self._notify_held(report.service)
            self._notify_route(report.service)

    # As follower: messages of the leader

    def add_update(self, update: RecordUpdate) -> None:
        """Take an update before the engine adopts it. Its version is not in force until the engine has adopted it."""
        self.updates[update.service] = update
        self.on_report(update.service)

    def has_clients(self, service: str) -> bool:
        """Return True if a client is waiting for the service at this replica."""
        return bool(self._own_held(service).held)

    def report(self, service: str) -> Report | None:
        """Return the report on the last update of a service, or None if there is none."""
        update, progress = self.updates.get(service), self._engine.record_progress(service)
        if update is None or progress is None:
            return None
        held = self._own_held(service)
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

    # Inside

    def _set_connected(self, replica: str, fleet: Fleet) -> None:
        changed = self.ledger.set_connected(replica, fleet) if self.leads else True
        for notify in self.on_fleet:
            notify()
        if changed:
            self._notify_all()

    def _notify_all(self) -> None:
        for service in list(self._routed_at):
            self._notify_held(service)
            self._notify_route(service)

    def _notify_route(self, service: str) -> None:
        """Notify the engine of a changed state, and the leader of any."""
        if service not in self._routed_at:
            return
        state = self._route(service)
        if self._notified_route.get(service) != state:
            self._notified_route[service] = state
            self._engine.routed(state)
        if not self.leads:
            self.on_report(service)

    def _notify_held(self, service: str) -> None:
        if service not in self._ordered_at:
            return
        held = self._held(service)
        if self._notified_held.get(service) != held:
            self._notified_held[service] = held
            self._engine.held(held)
        if not self.leads:
            self.on_report(service)

    def _own_route(self, service: str) -> RouteState:
        if not self.fleet.envoys:
            return RouteState(service, self._routed_at.get(service), "")
        return self._routes.get(service) or RouteState(service, None, "an Envoy")

    def _own_held(self, service: str) -> HoldStatus:
        if not self.fleet.holders:
            return HoldStatus(service, 0, 0, self._ordered_at.get(service))
        return self._helds.get(service) or HoldStatus(service, None, None)

    def _route(self, service: str) -> RouteState:
        mine = self._own_route(service)
        if not self.leads:
            return mine
        known, away = self.ledger.envoys.known, self.ledger.envoys.away
        if not known or away:
            return RouteState(service, None, f"Envoy {', '.join(sorted(away))}" if away else "no Envoy is connected")
        update, followers = self.updates.get(service), self.ledger.followers
        if not followers or update is None:
            return mine
        reports = {name: follower.latest_report(service) for name, follower in followers.items()}
        return slowest_route(mine, reports, update.version)

    def _held(self, service: str) -> HoldStatus:
        mine = self._own_held(service)
        if not self.leads:
            return mine
        reports = [follower.reports.get(service) for follower in self.ledger.followers.values()]
        complete = bool(self.ledger.holders.connected) and not self.ledger.holders.away
        return mine if complete and not reports else total_held(mine, reports, complete)
