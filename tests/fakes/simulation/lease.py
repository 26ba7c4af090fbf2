"""The simulated Lease of a cluster, and the elections of its replicas."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.fakes.simulation.peers import PeerStreams

if TYPE_CHECKING:
    from tests.fakes.simulation.replica import Replica

LEASE, MARGIN = 6.0, 2.0
"""Seconds for which the Lease is valid, and by which its holder stops earlier."""


class Lease:
    """The Lease and its holder."""

    def __init__(self, peers: PeerStreams, now: Callable[[], float]) -> None:
        self._peers, self._now = peers, now
        self.holder: str | None = None
        self._renewed_at = now()

    def elect(self, replica: Replica) -> None:
        """Let a replica renew the Lease, acquire it, or learn its holder."""
        if replica.is_frozen:
            return
        now = self._now()
        if self.holder in (None, replica.name) or now - self._renewed_at >= LEASE:
            begins = self.holder != replica.name or now >= replica.valid_until
            self.holder, self._renewed_at = replica.name, now
            replica.valid_until = now + LEASE - MARGIN
            if begins:
                self._end_streams(replica)
                replica.lead()
            return
        self.notice(replica)
        if replica.link is None and self.holder:
            self._peers.connect(replica, self.holder)

    def notice(self, replica: Replica) -> None:
        """Let a replica learn that it no longer leads."""
        if replica.leads and not replica.is_frozen and self._now() >= replica.valid_until:
            replica.follow()
            self._end_streams(replica)

    def _end_streams(self, replica: Replica) -> None:
        for link in self._peers.of(replica.name):
            self._peers.end(link)
