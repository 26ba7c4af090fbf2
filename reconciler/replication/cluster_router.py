"""The routers of all replicas as one: a `Router` for the engine.

It passes routes to this replica's own router. As leader, a route is acknowledged once every replica has acknowledged
it; as follower, once this one has. A replica without Envoys has nothing to wait for, but all together need one.
"""

from __future__ import annotations

from reconciler.ports.router import Report, Router, RouteState
from reconciler.replication.aggregation import slowest_route
from reconciler.replication.membership import Membership
from reconciler.replication.updates import RecordUpdates


class ClusterRouter:
    """The routes of all replicas."""

    def __init__(self, members: Membership, updates: RecordUpdates) -> None:
        self._members, self._updates = members, updates
        self._own: dict[str, RouteState] = {}
        """The states that this replica's router reported."""
        self._routed_at: dict[str, float] = {}
        """Time of the last change of a route; from then on it is in force at a replica without Envoys."""
        self._notified: dict[str, RouteState] = {}

    def attach(self, report: Report, own_router: Router) -> None:
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
        reports = {name: follower.latest_report(service) for name, follower in followers.items()}
        return slowest_route(mine, reports, update.version)

    def _own_state(self, service: str) -> RouteState:
        if not self._members.fleet.envoys:
            return RouteState(service, self._routed_at.get(service), "")
        return self._own.get(service) or RouteState(service, None, "an Envoy")
