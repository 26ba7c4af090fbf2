"""The leader's end of the peer streams. Counterparts: `merged.py`, which knows what is said, and `client.py`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from itertools import islice

import grpc
import structlog

from reconciler.core.entitlement import StreamKind
from reconciler.replication import wire
from reconciler.replication.ledger import Follower
from reconciler.replication.merged import Merged

log = structlog.get_logger()

WORDS_AT_ONCE = 500
"""So that a follower's loop has time for others while it hears of all services, and no message becomes too large."""


def _claimed(first: wire.Up) -> str:
    return first.hello.replica if first.hello else ""


CLAIMS = {wire.METHOD: (StreamKind.PEER, _claimed)}
"""By method, the kind of stream and how to get the replica's address from its first message."""


@dataclass(slots=True, eq=False)
class _Stream:
    """What one follower is yet to be told."""

    changed: set[str] = field(default_factory=set)
    fleet: bool = False
    wake_up: asyncio.Event = field(default_factory=asyncio.Event)


class PeerServer:
    """All followers' streams; while this replica does not lead, there are none."""

    def __init__(self, merged: Merged) -> None:
        self._merged = merged
        self._streams: set[_Stream] = set()
        merged.on_word = self._word
        merged.on_fleet.append(self._fleet)

    def handler(self) -> grpc.GenericRpcHandler:
        """To be added to the gRPC server."""
        stream = grpc.stream_stream_rpc_method_handler(self._stream, wire.UP.decode, wire.ENCODER.encode)
        return grpc.method_handlers_generic_handler(wire.SERVICE, {"Stream": stream})

    def _fleet(self) -> None:
        for stream in self._streams:
            stream.fleet = True
            stream.wake_up.set()

    def end(self) -> None:
        """This replica leads no more: nobody may go on by what it says."""
        for stream in self._streams:
            stream.wake_up.set()

    def _word(self, service: str) -> None:
        for stream in self._streams:
            stream.changed.add(service)
            stream.wake_up.set()

    async def _stream(
        self, messages: AsyncIterator[wire.Up], context: grpc.aio.ServicerContext[wire.Up, wire.Down]
    ) -> AsyncIterator[wire.Down]:
        first = await anext(aiter(messages), None)
        if first is None or first.hello is None:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first message has no hello")
            return
        if not self._merged.leads:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "this replica does not lead")
            return
        replica, reign, stream = first.hello.replica, self._merged.ledger, _Stream()
        self._streams.add(stream)
        follower = self._merged.joined(replica, first.fleet or wire.Fleet())
        del first  # it may be large, and the stream lasts
        log.info("a replica follows", replica=replica)
        listening = asyncio.create_task(self._listen(replica, follower, messages))
        listening.add_done_callback(lambda _: stream.wake_up.set())
        try:
            for down in self._everything():
                yield down
            while not listening.done() and reign is self._merged.ledger and self._merged.leads:
                if stream.changed or stream.fleet:
                    yield self._changes(stream)
                    continue  # what came meanwhile goes at once
                stream.wake_up.clear()
                await stream.wake_up.wait()
            if listening.done():
                await listening
        finally:
            listening.cancel()
            self._streams.discard(stream)
            self._merged.left(replica, follower)
            log.info("a replica is not connected any more", replica=replica)

    def _everything(self) -> Iterator[wire.Down]:
        """What changes while this is sent is said again after it."""
        words = list(self._merged.words.values())
        for start in range(0, len(words), WORDS_AT_ONCE):
            yield wire.Down(tuple(words[start : start + WORDS_AT_ONCE]))
        yield wire.Down(whole=True, fleet=self._merged.ledger.fleet())

    def _changes(self, stream: _Stream) -> wire.Down:
        known = self._merged.words
        changed = tuple(islice(stream.changed, WORDS_AT_ONCE))
        words = tuple(known[service] for service in changed if service in known)
        removed = tuple(service for service in changed if service not in known)
        fleet = self._merged.ledger.fleet() if stream.fleet else None
        stream.changed.difference_update(changed)
        stream.fleet = False
        return wire.Down(words, removed, fleet=fleet)

    async def _listen(self, replica: str, follower: Follower, messages: AsyncIterator[wire.Up]) -> None:
        async for message in messages:
            if message.fleet is not None:
                self._merged.has(replica, follower, message.fleet)
            if message.faults is not None:
                self._merged.found_by(replica, follower, message.faults)
            for report in message.reports:
                self._merged.reported(replica, follower, wire.shortened(report))
