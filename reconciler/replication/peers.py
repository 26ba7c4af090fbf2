"""This replica among the others, in one piece for the wiring: who leads is said here, and all hear it in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import grpc

from reconciler.ports.holders import Holders, HoldStatus
from reconciler.ports.router import Router, RouteState
from reconciler.replication import client, merged
from reconciler.replication.client import FORSAKEN_SECONDS, Credentials, PeerClient
from reconciler.replication.ledger import Terms
from reconciler.replication.merged import Merged
from reconciler.replication.server import PeerServer

FORGET_EVERY_SECONDS = 1.0
"""A pod that has ended keeps everything awake until it is forgotten, at most so much later."""


class Engine(merged.Engine, client.Engine, Protocol):
    """All that is asked of the engine."""

    def lead(self, since: float, /) -> None: ...

    def follow(self) -> None: ...


class Peers:
    """`merged` is what the engine has as its router, its holders and its replicas. It follows nobody at first."""

    def __init__(
        self,
        terms: Terms,
        engine: Engine,
        lost: Callable[[], None] = lambda: None,
        credentials: Credentials | None = None,
        authority: str | None = None,
        forsaken_seconds: float | None = None,
    ) -> None:
        """`forsaken_seconds` is how long a follower without a leader waits before it gets on alone; by default as long
        as is safe with a lease of `Terms.settle_seconds`."""
        self._terms, self._engine = terms, engine
        self.merged = Merged(terms)
        self._server = PeerServer(self.merged)
        wait = max(FORSAKEN_SECONDS, 2 * terms.settle_seconds) if forsaken_seconds is None else forsaken_seconds
        self._client = PeerClient(terms.me, self.merged, engine, lost, credentials, authority, wait)

    def attach(self, router: Router, holders: Holders, engine: merged.Engine | None = None) -> None:
        """Set this replica's own router and holders, before anything else.

        Reports go to `engine`, if they do not go to the engine directly.
        """
        self.merged.attach(engine or self._engine, router, holders)

    def handler(self) -> grpc.GenericRpcHandler:
        """To be added to the gRPC server."""
        return self._server.handler()

    @property
    def synced(self) -> bool:
        """Whether the leader's words were all heard, or there is none to wait for; before, no Envoy may be answered."""
        return self.merged.leads or self._client.synced

    def connected(self) -> frozenset[str]:
        """As leader: IP addresses of the replicas that follow."""
        return self.merged.ledger.connected() if self.merged.leads else frozenset()

    def lead(self, since: float) -> None:
        """The lease is ours since then (`Terms.ticks`); the backend should have reported all services."""
        self._client.lead()
        self.merged.lead(since)
        self._engine.lead(self._terms.now())

    def follow(self, address: str | None) -> None:
        """The lease is not ours: the leader is at this `ip:port`, or not known. Needs a running loop."""
        self.merged.follow()
        self._server.end()
        self._engine.follow()
        self._client.follow(address)

    async def run(self) -> None:
        """Forget those that are gone for good, until cancelled. No reader of anything has a part in that."""
        while True:
            await asyncio.sleep(FORGET_EVERY_SECONDS)
            self.merged.forget()

    async def close(self) -> None:
        """To be awaited before the gRPC server stops."""
        self.merged.follow()
        self._server.end()
        await self._client.close()

    # What this replica's own parts report

    def routed(self, state: RouteState) -> None:
        self.merged.routed(state)

    def held(self, held: HoldStatus) -> None:
        self.merged.held(held)

    def came_or_went(self, envoys: Mapping[str, str], holders: Iterable[str]) -> None:
        self.merged.came_or_went(envoys, holders)
