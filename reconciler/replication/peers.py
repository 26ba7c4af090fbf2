"""Replication of one replica: its view of all replicas, and its end of the peer streams."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc

from reconciler.ports.holders import Holders, Report
from reconciler.ports.router import Router
from reconciler.replication.fleet import ReplicaContext
from reconciler.replication.follower import ALONE_AFTER_SECONDS, Credentials, PeerClient
from reconciler.replication.leader import PeerServer
from reconciler.replication.replication import ReplicaEngine, Replication

FORGET_EVERY_SECONDS = 1.0
"""Interval between two checks for members that are gone for good; until then they keep all services awake."""


class Peers:
    """Replication with its streams. It starts without a leader."""

    def __init__(
        self,
        context: ReplicaContext,
        engine: ReplicaEngine,
        lost: Callable[[], None],
        credentials: Credentials | None,
        authority: str | None,
        alone_after_seconds: float | None = None,
    ) -> None:
        """Continue alone after `alone_after_seconds` without a leader; by default as long as is safe with a Lease of
        `settle_seconds`."""
        self._context, self._engine = context, engine
        self.replication = Replication(context)
        self.members = self.replication.members
        self._server = PeerServer(self.replication)
        wait = (
            max(ALONE_AFTER_SECONDS, 2 * context.settle_seconds) if alone_after_seconds is None else alone_after_seconds
        )
        self._client = PeerClient(context.me, self.replication, engine, lost, credentials, authority, wait)

    def attach(self, router: Router, holders: Holders, held: Report | None = None) -> None:
        """Set this replica's own router and holders, before anything else.

        `held` receives the held connections for the engine, if they do not go to the engine directly.
        """
        self.replication.attach(self._engine, router, holders, held)

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the handler for the gRPC server."""
        return self._server.handler()

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
        self._engine.lead(self._context.clock.now())

    def follow(self, address: str | None) -> None:
        """Follow the leader at this `ip:port`; None: it is not known. Needs a running loop."""
        self.replication.follow()
        self._server.end()
        self._engine.follow()
        self._client.follow(address)

    async def run(self) -> None:
        """Drop members that are gone for good, until cancelled; independent of readers of the state."""
        while True:
            await asyncio.sleep(FORGET_EVERY_SECONDS)
            self.members.forget()

    async def close(self) -> None:
        """End all streams. Await it before the gRPC server stops."""
        self.replication.follow()
        self._server.end()
        await self._client.close()
