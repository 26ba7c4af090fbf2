"""Replication of one replica: its view of all replicas, and its end of the peer streams."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from reconciler.replication.fleet import ReplicaContext
from reconciler.replication.follower import Credentials, PeerClient
from reconciler.replication.leader import PeerServer
from reconciler.replication.replication import Replication

FORGET_EVERY_SECONDS = 1.0
"""Interval between two checks for members that are gone for good; until then they keep all services awake."""


class Peers:
    """Replication with its streams. It starts without a leader."""

    def __init__(
        self, context: ReplicaContext, lost: Callable[[], None], credentials: Credentials | None, authority: str | None
    ) -> None:
        """Attach the engine to `replication` before anything else."""
        self.replication = Replication(context)
        self.members = self.replication.members
        self.server = PeerServer(self.replication)
        self._client = PeerClient(self.replication, lost, credentials, authority)

    @property
    def synced(self) -> bool:
        """True once all records of the leader have arrived, or there is none. Before that, no Envoy may be answered."""
        return self.members.leads or self._client.synced

    def connected(self) -> frozenset[str]:
        """Return the IP addresses of the connected followers, as leader."""
        return self.members.ledger.connected() if self.members.leads else frozenset()

    def lead(self, since: float) -> None:
        """Lead since that time, in `ticks`. The backend should have reported all services."""
        self._client.lead()
        self.replication.lead(since)
        self.replication.engine.lead(self.members.context.clock.now())

    def follow(self, address: str | None) -> None:
        """Follow the leader at this `ip:port`; None: it is not known. Needs a running loop."""
        self.replication.follow()
        self.server.end()
        self.replication.engine.follow()
        self._client.follow(address)

    async def run(self) -> None:
        """Drop members that are gone for good, until cancelled; independent of readers of the state."""
        while True:
            await asyncio.sleep(FORGET_EVERY_SECONDS)
            self.members.forget()

    async def close(self) -> None:
        """End all streams. Await it before the gRPC server stops."""
        self.replication.follow()
        self.server.end()
        await self._client.close()
