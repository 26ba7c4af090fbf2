"""A follower's end of the peer stream: receives records, sends reports. Counterpart: `leader.py`.

When a stream ends, another is opened, with exponential backoff and jitter, and everything is sent again. Keepalive
pings end a stream whose other side vanished. Without a leader for so long that even a frozen one cannot act on earlier
reports, the engine continues alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import grpc
import msgspec
import structlog

from reconciler.concurrency import Backoff
from reconciler.replication import messages
from reconciler.replication.replication import Replication

log = structlog.get_logger()

BACKOFF = Backoff(0.05, 2.0, jitter=(0.5, 1.0))
ALONE_AFTER_SECONDS = 30.0
"""Longer than a Lease lasts, and than a leader needs to notice that a follower is gone."""
REPORTS_PER_MESSAGE = 500
GRPC_OPTIONS = (
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # The keepalive timeout alone is not enough: the ping has a longer timeout of its own, which then decides.
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # A leader sends its records in parts, but its fleet in one message.
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
)


Credentials = Callable[[], grpc.ChannelCredentials]
"""Called for each stream, because certificates are rotated. Raises `OSError` if a certificate cannot be read."""


@dataclass(slots=True)
class _Pending:
    """Services whose reports the leader has not been sent yet."""

    with_clients: set[str] = field(default_factory=set)
    """Services with waiting clients; they are sent first."""
    services: set[str] = field(default_factory=set)
    wakeup: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self) -> list[str]:
        """Remove and return the next services. There are more while `wakeup` is set."""
        taken = list(islice(self.with_clients, REPORTS_PER_MESSAGE))
        self.with_clients.difference_update(taken)
        self.services.difference_update(taken)
        while self.services and len(taken) < REPORTS_PER_MESSAGE:
            taken.append(self.services.pop())
        if not (self.services or self.with_clients):
            self.wakeup.clear()
        return taken


class PeerClient:
    """Connection to the leader at an address, `ip:port`. Calls `lost` when a stream ends: there may be a new leader."""

    def __init__(
        self, replication: Replication, lost: Callable[[], None], credentials: Credentials | None, authority: str | None
    ) -> None:
        """Take the name in the leader's certificate as `authority`; it is not the leader's address."""
        self._replication, self._members = replication, replication.members
        self._lost, self._credentials = lost, credentials
        context = self._members.context
        self._alone_after_seconds = context.alone_after_seconds or max(ALONE_AFTER_SECONDS, 2 * context.settle_seconds)
        self._options: Sequence[tuple[str, Any]] = GRPC_OPTIONS
        if authority:
            self._options = (*GRPC_OPTIONS, ("grpc.ssl_target_name_override", authority))
        self._pending = _Pending()
        self._unconfirmed = messages.Fleet()
        """Members that connected here and are not in the leader's fleet yet. Until they are, they count as connected,
        even if they have left: the leader would not miss a member that it never knew."""
        self._task: asyncio.Task[None] | None = None
        self._has_received = False
        """True if messages arrived on the present stream, and none was invalid."""
        self._alone: asyncio.TimerHandle | None = None
        self.synced = False
        """True once all records of the present leader have arrived, or there is no leader to wait for."""
        replication.updates.on_report = self._report
        replication.members.on_fleet.append(self._on_fleet)
        replication.faults.on_change.append(self._pending.wakeup.set)

    def follow(self, address: str | None) -> None:
        """Follow the leader at this address; None: the leader is not known."""
        self._stop()
        self.synced = False
        self._start_alone_timer()
        if address is not None:
            self._task = asyncio.create_task(self._stay_connected(address))

    def lead(self) -> None:
        """Stop following: this replica leads."""
        self._members.memory = messages.union(self._members.memory, self._unconfirmed)
        self._unconfirmed = messages.Fleet()
        self._stop()
        self._stop_alone_timer()

    async def close(self) -> None:
        task = self._task
        self._stop()
        self._stop_alone_timer()
        if task:
            await asyncio.gather(task, return_exceptions=True)

    def _on_fleet(self) -> None:
        if not self._members.leads:
            news = messages.difference(self._members.fleet, self._members.memory)
            self._unconfirmed = messages.union(self._unconfirmed, news)
        self._pending.wakeup.set()

    def _reported_fleet(self) -> messages.Fleet:
        """Return the members that the leader has to count as connected here."""
        return messages.union(self._unconfirmed, self._members.fleet)

    def _stop(self) -> None:
        if self._task:
            self._task.cancel()
            self._task = None

    def _start_alone_timer(self) -> None:
        if self._alone is None:
            self._alone = asyncio.get_running_loop().call_later(self._alone_after_seconds, self._continue_alone)

    def _stop_alone_timer(self) -> None:
        if self._alone:
            self._alone.cancel()
            self._alone = None

    def _continue_alone(self) -> None:
        self._alone = None
        log.warning("no leader found; this replica continues alone", seconds=self._alone_after_seconds)
        self.synced = True
        self._replication.engine.detach()

    def _report(self, service: str) -> None:
        is_awaited = self._replication.holders.own(service).held
        (self._pending.with_clients if is_awaited else self._pending.services).add(service)
        self._pending.wakeup.set()

    async def _stay_connected(self, address: str) -> None:
        delays = BACKOFF.delays()
        while True:
            self._has_received = False
            error = await self._run_stream(address)
            log.info("stream to the leader ended", leader=address, error=error)
            self._start_alone_timer()
            if self._has_received:
                delays = BACKOFF.delays()
            self._lost()
            await asyncio.sleep(next(delays))

    async def _run_stream(self, address: str) -> str:
        """Run one stream. Return why it ended."""
        if self._credentials is None:
            channel = grpc.aio.insecure_channel(address, options=self._options)
        else:
            try:
                credentials = self._credentials()
            except OSError as error:
                return f"cannot read a certificate: {error}"
            channel = grpc.aio.secure_channel(address, credentials, options=self._options)
        self._replication.updates.latest.clear()  # another leader has versions of its own
        async with channel:
            call = channel.stream_stream(messages.METHOD, messages.ENCODER.encode, messages.LEADER_DECODER.decode)()
            sending = asyncio.create_task(self._send(call))
            sending.add_done_callback(lambda _: call.cancel())  # a follower that cannot send must not look connected
            try:
                await self._receive(call)
                return "the leader ended it"
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling() or not sending.done():
                    raise
                return f"cannot send: {sending.exception()!r}"
            except grpc.RpcError as error:
                return f"{error.code().name}: {error.details()}"
            except (msgspec.MsgspecError, ValueError) as error:
                log.error("invalid message from the leader", error=str(error))
                self._has_received = False
                return str(error)
            finally:
                sending.cancel()
                call.cancel()
                await asyncio.gather(sending, return_exceptions=True)

    async def _receive(self, call: Any) -> None:
        """Adopt the leader's records and fleet until it ends the stream. Raises the errors of gRPC and of decoding."""
        named: set[str] = set()
        async for message in call:
            self._has_received = True
            self._stop_alone_timer()
            for update in message.updates:
                named.add(update.service)
                self._replication.updates.add(update)
                self._replication.engine.adopt(update.service, update.record, update.fence, update.cause)
            for service in message.removed:
                self._drop(service)
            if message.fleet is not None:
                self._members.memory = message.fleet
                self._unconfirmed = messages.difference(self._unconfirmed, message.fleet)
                self._pending.wakeup.set()
            if message.complete:
                for service in self._replication.updates.latest.keys() - named:
                    self._drop(service)
                self.synced = True

    def _drop(self, service: str) -> None:
        self._replication.updates.latest.pop(service, None)
        self._replication.engine.adopt(service, None)

    async def _send(self, call: Any) -> None:
        """Send changes: removed members before reports that exclude them, new members after those that include them."""
        sent, faults = self._reported_fleet(), dict[str, str]()
        await call.write(messages.FollowerMessage(messages.FollowerHello(self._members.context.me), sent))
        self._pending.wakeup.set()
        while True:
            await self._pending.wakeup.wait()
            # A change during a write sets `wakeup` again, so everything is read before the first write.
            fleet, services = self._reported_fleet(), self._pending.take()
            own_faults = dict(self._replication.faults.own)
            reports = tuple(report for service in services if (report := self._replication.report(service)))
            all_sent, stayed = not self._pending.wakeup.is_set(), messages.intersection(sent, fleet)
            if faults != own_faults:
                faults = own_faults
                cut = {name: error[: messages.MAX_TEXT_LENGTH] for name, error in faults.items()}
                await call.write(messages.FollowerMessage(faults=cut))
            if reports or stayed != sent:
                await call.write(messages.FollowerMessage(None, stayed if stayed != sent else None, reports))
                sent = stayed
            if all_sent and fleet != sent:
                await call.write(messages.FollowerMessage(None, fleet))
                sent = fleet
