"""The holders of all replicas as one: `Holders` for the engine.

It passes orders to this replica's own holders. As leader, it adds up the connections of every replica; as follower,
those of this one. A replica without holders has nothing to wait for, but all together need one.
"""

from __future__ import annotations

from reconciler.ports.holders import Holders, HoldOrder, HoldStatus, Report
from reconciler.replication.aggregation import total_held
from reconciler.replication.cluster_router import ClusterRouter
from reconciler.replication.membership import Membership
from reconciler.replication.updates import RecordUpdates


class ClusterHolders:
    """The held and relayed connections of all replicas."""

    def __init__(self, members: Membership, updates: RecordUpdates, router: ClusterRouter) -> None:
        self._members, self._updates, self._router = members, updates, router
        self._own: dict[str, HoldStatus] = {}
        """The status that this replica's holders reported."""
        self._ordered_at: dict[str, float] = {}
        """Time of the last order; from then on it is in force at a replica without holders."""
        self._notified: dict[str, HoldStatus] = {}

    def attach(self, report: Report, own_holders: Holders) -> None:
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
