"""Errors with which Envoys reject services: of this replica's Envoys, and as leader of all replicas'. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from reconciler.replication.fleet import FollowerState
from reconciler.replication.membership import Membership


class EnvoyFaults:
    """The errors, by service."""

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

    def set_follower(self, replica: str, follower: FollowerState, faults: dict[str, str]) -> None:
        """Take the errors of a follower's Envoys."""
        if self._members.is_current(replica, follower):
            follower.faults = faults
            self.notify()

    def notify(self) -> None:
        """Report the errors, which may have changed."""
        for notify in self.on_change:
            notify()
