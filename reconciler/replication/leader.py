"""The leader's end of the peer streams: sends records, receives reports. Counterpart: `follower.py`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from itertools import islice

import grpc
import structlog

from reconciler.core.access import StreamKind
from reconciler.replication import messages
from reconciler.replication.fleet import FollowerState
from reconciler.replication.replication import Replication

log = structlog.get_logger()

UPDATES_PER_MESSAGE = 500
"""Bounds a message, and the time that a follower's event loop spends on one."""


CLAIMS = {messages.METHOD: (StreamKind.PEER, lambda first: first.hello.replica if first.hello else "")}
"""By method, the kind of stream, and how to read the replica's address from its first message."""


@dataclass(slots=True, eq=False)
class _Pending:
    """Changes that one follower has not been sent yet."""

    services: set[str] = field(default_factory=set)
    fleet: bool = False
    wakeup: asyncio.Event = field(default_factory=asyncio.Event)


class PeerServer:
    """Streams of all followers. A replica that does not lead refuses them."""

    def __init__(self, replication: Replication) -> None:
        self._replication, self._members = replication, replication.members
        self._streams: set[_Pending] = set()
        replication.updates.on_update = self._add_service
        replication.members.on_fleet.append(self._add_fleet)

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the handler for the gRPC server."""
        decode, encode = messages.FOLLOWER_DECODER.decode, messages.ENCODER.encode
        stream = grpc.stream_stream_rpc_method_handler(self._stream, decode, encode)
        return grpc.method_handlers_generic_handler(messages.SERVICE, {"Stream": stream})

    def end(self) -> None:
        """End all streams: this replica no longer leads, and no follower may act on its messages."""
        for pending in self._streams:
            pending.wakeup.set()

    def _add_fleet(self) -> None:
        for pending in self._streams:
            pending.fleet = True
            pending.wakeup.set()

    def _add_service(self, service: str) -> None:
        for pending in self._streams:
            pending.services.add(service)
            pending.wakeup.set()

    async def _stream(
        self,
        received: AsyncIterator[messages.FollowerMessage],
        context: grpc.aio.ServicerContext[messages.FollowerMessage, messages.LeaderMessage],
    ) -> AsyncIterator[messages.LeaderMessage]:
        """Serve one follower: all records, then each change, until its stream or this term ends."""
        first = await anext(aiter(received), None)
        if first is None or first.hello is None:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first message has no hello")
            return
        if not self._members.leads:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "this replica does not lead")
            return
        replica, ledger, pending = first.hello.replica, self._members.ledger, _Pending()
        self._streams.add(pending)
        follower = self._members.add_follower(replica, first.fleet or messages.Fleet())
        del first  # it may be large, and the stream lasts
        log.info("follower connected", replica=replica)
        receiving = asyncio.create_task(self._receive(follower, received))
        receiving.add_done_callback(lambda _: pending.wakeup.set())
        try:
            for message in self._all_records():
                yield message
            while not receiving.done() and ledger is self._members.ledger and self._members.leads:
                if pending.services or pending.fleet:
                    yield self._changes(pending)
                    continue  # changes that arrived meanwhile are sent at once
                pending.wakeup.clear()
                await pending.wakeup.wait()
            if receiving.done():
                await receiving
        finally:
            receiving.cancel()
            self._streams.discard(pending)
            self._replication.remove_follower(follower)
            log.info("follower disconnected", replica=replica)

    def _all_records(self) -> Iterator[messages.LeaderMessage]:
        """Yield the records of all services. A change during this time is sent again afterwards."""
        updates = list(self._replication.updates.latest.values())
        for start in range(0, len(updates), UPDATES_PER_MESSAGE):
            yield messages.LeaderMessage(tuple(updates[start : start + UPDATES_PER_MESSAGE]))
        yield messages.LeaderMessage(complete=True, fleet=self._members.ledger.fleet())

    def _changes(self, pending: _Pending) -> messages.LeaderMessage:
        known = self._replication.updates.latest
        changed = tuple(islice(pending.services, UPDATES_PER_MESSAGE))
        updates = tuple(known[service] for service in changed if service in known)
        removed = tuple(service for service in changed if service not in known)
        fleet = self._members.ledger.fleet() if pending.fleet else None
        pending.services.difference_update(changed)
        pending.fleet = False
        return messages.LeaderMessage(updates, removed, fleet=fleet)

    async def _receive(self, follower: FollowerState, received: AsyncIterator[messages.FollowerMessage]) -> None:
        async for message in received:
            self._replication.receive(follower, message)
