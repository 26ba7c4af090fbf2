"""A follower's end of the peer stream: the leader's words in, what has come of them out. Counterpart: `server.py`.

When a stream ends another is tried, with exponential backoff and jitter, and everything is said again. Keepalive pings
end one whose other side vanished without a word. Without a leader for so long that none, were it only frozen, could
still act on what it heard of us, the engine is told to get on alone.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

import grpc
import msgspec
import structlog

from reconciler.core.record import Record
from reconciler.replication import wire
from reconciler.replication.merged import Merged

log = structlog.get_logger()

FIRST_BACKOFF_SECONDS = 0.05
LAST_BACKOFF_SECONDS = 2.0
FORSAKEN_SECONDS = 30.0
"""More than a lease lasts, and more than it takes a leader to notice that we are gone."""
REPORTS_AT_ONCE = 500
GRPC_OPTIONS = (
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # The keepalive time-out alone is not enough: the ping itself has a longer one, which then decides.
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # A leader sends its records in parts; all that it knows of Envoys and holders is one message.
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
)


Credentials = Callable[[], grpc.ChannelCredentials]
"""Asked for each stream, as certificates are replaced while we run. Raises `OSError` when one cannot be read."""


class Engine(Protocol):
    """What follows the leader."""

    def adopt(self, name: str, record: Record | None, fence: bool = False, cause: str = "", /) -> None: ...

    def forsake(self) -> None: ...


@dataclass(slots=True)
class _Due:
    """What the leader is yet to be told."""

    waited_for: set[str] = field(default_factory=set)
    """Services that somebody waits for: they are said first."""
    services: set[str] = field(default_factory=set)
    wake_up: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self) -> list[str]:
        """The next few; there is more for as long as `wake_up` is set."""
        taken = list(islice(self.waited_for, REPORTS_AT_ONCE))
        self.waited_for.difference_update(taken)
        self.services.difference_update(taken)
        while self.services and len(taken) < REPORTS_AT_ONCE:
            taken.append(self.services.pop())
        if not (self.services or self.waited_for):
            self.wake_up.clear()
        return taken


def backoff_seconds(failures: int, chance: float) -> float:
    """How long to wait after so many failures in a row; `chance` in [0, 1) spreads those who fail together."""
    return min(LAST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** min(failures, 16)) * (0.5 + chance / 2)


class PeerClient:
    """Follows the leader at an address, `ip:port`. `lost` is told when a stream to it ends: there may be a new one."""

    def __init__(
        self,
        me: str,
        merged: Merged,
        engine: Engine,
        lost: Callable[[], None] = lambda: None,
        credentials: Credentials | None = None,
        authority: str | None = None,
        forsaken_seconds: float = FORSAKEN_SECONDS,
    ) -> None:
        """`authority` is the name in the leader's certificate, which is not its address."""
        self._me, self._merged, self._engine, self._lost = me, merged, engine, lost
        self._credentials, self._forsaken_seconds = credentials, forsaken_seconds
        self._options: Sequence[tuple[str, Any]] = GRPC_OPTIONS
        if authority:
            self._options = (*GRPC_OPTIONS, ("grpc.ssl_target_name_override", authority))
        self._due = _Due()
        self._unheard = wire.Fleet()
        """Who came here, and is not among those whom the leader last said that there are. Until it is, it counts as
        connected, though it may have gone: whom the leader never heard of it would not miss."""
        self._task: asyncio.Task[None] | None = None
        self._alone: asyncio.TimerHandle | None = None
        self.synced = False
        """Whether all of the present leader's words were heard, or there is none to wait for."""
        merged.on_report = self._report
        merged.on_fleet.append(self._fleet)
        merged.on_faults.append(self._due.wake_up.set)

    def follow(self, address: str | None) -> None:
        """The leader is at this address; None: nobody is known to lead."""
        self._stop()
        self.synced = False
        self._missing()
        if address is not None:
            self._task = asyncio.create_task(self._keep(address))

    def lead(self) -> None:
        """There is nobody to follow."""
        self._merged.memory = wire.together(self._merged.memory, self._unheard)
        self._unheard = wire.Fleet()
        self._stop()
        self._found()

    async def close(self) -> None:
        task = self._task
        self._stop()
        self._found()
        if task:
            await asyncio.gather(task, return_exceptions=True)

    def _fleet(self) -> None:
        if not self._merged.leads:
            news = wire.without(self._merged.fleet, self._merged.memory)
            self._unheard = wire.together(self._unheard, news)
        self._due.wake_up.set()

    def _there(self) -> wire.Fleet:
        """Whom the leader is to count as connected here."""
        return wire.together(self._unheard, self._merged.fleet)

    def _stop(self) -> None:
        if self._task:
            self._task.cancel()
            self._task = None

    def _missing(self) -> None:
        if self._alone is None:
            self._alone = asyncio.get_running_loop().call_later(self._forsaken_seconds, self._forsake)

    def _found(self) -> None:
        if self._alone:
            self._alone.cancel()
            self._alone = None

    def _forsake(self) -> None:
        self._alone = None
        log.warning("there is no leader to be found; this replica gets on alone", seconds=self._forsaken_seconds)
        self.synced = True
        self._engine.forsake()

    def _report(self, service: str) -> None:
        (self._due.waited_for if self._merged.waited_for(service) else self._due.services).add(service)
        self._due.wake_up.set()

    async def _keep(self, address: str) -> None:
        failures = 0
        while True:
            spoke, why = await self._converse(address)
            log.info("the stream to the leader ended", leader=address, why=why)
            self._missing()
            if spoke:
                failures = 0
            self._lost()
            await asyncio.sleep(backoff_seconds(failures, random.random()))
            failures += 1

    async def _converse(self, address: str) -> tuple[bool, str]:
        """One stream from its beginning to its end; whether the leader ever spoke, and how it ended."""
        if self._credentials is None:
            channel = grpc.aio.insecure_channel(address, options=self._options)
        else:
            try:
                credentials = self._credentials()
            except OSError as error:
                return False, f"a certificate cannot be read: {error}"
            channel = grpc.aio.secure_channel(address, credentials, options=self._options)
        self._merged.words.clear()  # another leader counts its versions anew
        async with channel:
            call = channel.stream_stream(wire.METHOD, wire.ENCODER.encode, wire.DOWN.decode)()
            heard = _Heard()
            saying = asyncio.create_task(self._say(call))
            saying.add_done_callback(lambda _: call.cancel())  # who says nothing any more must not look connected
            try:
                await self._hear(call, heard)
                return heard.any, "the leader ended it"
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling() or not saying.done():
                    raise
                return heard.any, f"nothing can be said any more: {saying.exception()!r}"
            except grpc.RpcError as error:
                return heard.any, f"{error.code().name}: {error.details()}"
            except (msgspec.MsgspecError, ValueError) as error:
                log.error("the leader does not speak this protocol", why=str(error))
                return False, str(error)
            finally:
                saying.cancel()
                call.cancel()
                await asyncio.gather(saying, return_exceptions=True)

    async def _hear(self, call: Any, heard: _Heard) -> None:
        async for down in call:
            heard.any = True
            self._found()
            for word in down.words:
                heard.named.add(word.service)
                self._merged.heard(word)
                self._engine.adopt(word.service, word.record, word.fence, word.cause)
            for service in down.removed:
                self._drop(service)
            if down.fleet is not None:
                self._merged.memory = down.fleet
                self._unheard = wire.without(self._unheard, down.fleet)
                self._due.wake_up.set()
            if down.whole:
                for service in self._merged.words.keys() - heard.named:
                    self._drop(service)
                self.synced = True

    def _drop(self, service: str) -> None:
        self._merged.words.pop(service, None)
        self._engine.adopt(service, None)

    async def _say(self, call: Any) -> None:
        """Who left is said before what is no longer counted for it, and who came after what is."""
        said, faults = self._there(), dict[str, str]()
        await call.write(wire.Up(wire.Hello(self._me), said))
        self._due.wake_up.set()
        while True:
            await self._due.wake_up.wait()
            if faults != self._merged.own_faults:
                faults = dict(self._merged.own_faults)
                await call.write(wire.Up(faults={name: why[: wire.MOST_REASON] for name, why in faults.items()}))
            fleet, services = self._there(), self._due.take()
            reports = tuple(report for service in services if (report := self._merged.report(service)))
            all_said, stayed = not self._due.wake_up.is_set(), wire.common(said, fleet)
            if reports or stayed != said:
                await call.write(wire.Up(None, stayed if stayed != said else None, reports))
                said = stayed
            if all_said and fleet != said:
                await call.write(wire.Up(None, fleet))
                said = fleet


@dataclass(slots=True)
class _Heard:
    """What came on one stream."""

    any: bool = False
    named: set[str] = field(default_factory=set)
