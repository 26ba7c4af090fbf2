"""The xDS server: the grpc.aio shell around `ads/stream.py`, for every Envoy that connects.

It runs on one event loop, which also calls the callbacks; they must be quick. It has no grpc.aio server of its own:
`handler()` is added to the application's server, which needs `GRPC_OPTIONS`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv6Address, ip_address
from typing import Any, Literal
from urllib.parse import unquote

import grpc

from xds import ir
from xds.ads.attribution import Attribution
from xds.ads.codec import MAX_NAMES, MalformedError, NodeId, claimed_node_id
from xds.ads.delta import DeltaStream
from xds.ads.sotw import SotwStream
from xds.ads.stream import Nack, Stream
from xds.ads.subscription import Subscription
from xds.names import EDS, LDS
from xds.resources.proto import DeltaDiscoveryRequest, DiscoveryRequest
from xds.resources.snapshot import Change, Snapshot

MAX_MESSAGE_BYTES = 8 * 1024 * 1024
"""The largest message on any stream.

It fits the first request of an Envoy that reconnects with 10,000 services: each is named twice, once with a version
(twice 317 bytes for the longest namespace and name, and 28), which is 6.7 MB.
"""
GRPC_OPTIONS = (
    # Detects within 15 s that an Envoy is gone without closing its connection.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # Without it, a frozen peer is never disconnected, despite the timeout above.
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Envoys send pings too (`bootstrap/document.py`), and must not be disconnected for them.
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # Limits connections without streams, and those that do not finish their handshake.
    ("grpc.max_connection_idle_ms", 60_000),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_concurrent_streams", 64),
    ("grpc.max_send_message_length", -1),
)
"""The options that the application's grpc.aio.server needs."""

MAX_UNANSWERED = 5 * MAX_NAMES
"""Resources of one type that an Envoy may leave unanswered while it requests more."""
OVERDUE_SECONDS = 5.0
"""Half of the time that an inquiry (`ads/attribution.py`) waits for an answer."""
LAST_WRITE_SECONDS = 2.0
"""The time for unfinished writes when the server closes."""
_CLOSING = (grpc.StatusCode.UNAVAILABLE, "the server is closing")
_SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
CLAIMED_NODE: Mapping[str, Callable[[bytes], str]] = {
    f"/{_SERVICE}/DeltaAggregatedResources": partial(claimed_node_id, DeltaDiscoveryRequest),
    f"/{_SERVICE}/StreamAggregatedResources": partial(claimed_node_id, DiscoveryRequest),
}
"""By method, the function that returns the node id in the first request. It raises `MalformedError`."""


@dataclass(frozen=True, slots=True)
class Node:
    """A connected Envoy."""

    id: str
    since: float
    """When it connected, seconds since the epoch."""
    mode: str
    """`delta` or `sotw`."""
    versions: Mapping[str, str]
    """By type URL, the version that it last acknowledged; empty until then."""
    nack: Nack | None
    """The last rejection that still applies."""
    nacks: int
    """The number of rejections on this stream."""
    stats: str = ""
    """`ip:port` of its statistics; empty if it names none."""
    address: str = ""
    """The IP address of its stream; empty on a Unix socket."""


NodeEvent = Literal["connected", "disconnected", "nacked"]
"""A change of an Envoy; `Node.nack` has what it rejected."""


def peer_address(peer: str) -> str:
    """Return the IP address in the text of a gRPC `context.peer()`; empty for a Unix socket.

    An IPv4 address that reached an IPv6 socket is returned as IPv4.
    """
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return ""
    host = unquote(rest.rpartition(":")[0]).strip("[]").partition("%")[0]
    address = ip_address(host)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


class _Session:
    """One stream of a known Envoy."""

    def __init__(self, stream: Stream, node: NodeId, address: str) -> None:
        self.stream = stream
        self.address = address
        self.id, self.stats = node.id, node.stats
        self.since = time.time()
        self.wake = asyncio.Event()
        self.closing = False
        self.handler = asyncio.current_task()
        self.end: asyncio.Future[tuple[grpc.StatusCode, str]] = asyncio.get_running_loop().create_future()
        self.nacks = 0

    def finish(self, code: grpc.StatusCode, details: str) -> None:
        """End the stream with this status."""
        if not self.end.done():
            self.end.set_result((code, details))

    def node(self) -> Node:
        versions = {type_url: sub.acked_version for type_url, sub in self.stream.types.items()}
        nack = max(self.stream.nacks.values(), key=lambda one: one.at, default=None)
        return Node(self.id, self.since, self.stream.mode, versions, nack, self.nacks, self.stats, self.address)


class XdsServer:
    """The xDS server: Envoys receive what `configure` and `route` set, when they connect and whenever it changes."""

    def __init__(
        self,
        *,
        on_ack: Callable[[str, tuple[str, ...]], None],
        on_node: Callable[[NodeEvent, Node], None],
        on_faults: Callable[[Mapping[str, str]], None] = lambda _: None,
        snapshot: Snapshot | None = None,
    ) -> None:
        """Create a server.

        `on_ack` receives the node id of an Envoy that acknowledged endpoints in the version sent last, and their
        services; `on_faults` the errors of services that are not served as configured, whenever they change.
        """
        self._on_ack, self._on_node, self._on_faults = on_ack, on_node, on_faults
        self._snapshot = snapshot or Snapshot()
        self._attribution = Attribution(self._snapshot, self._others)
        self._overdue: asyncio.TimerHandle | None = None
        self._faults: Mapping[str, str] = {}
        self._sessions: dict[str, _Session] = {}
        self._opened = asyncio.Event()
        self._closed = False

    def configure(self, listen: ir.Listen, services: Iterable[ir.Upstream]) -> None:
        """Replace the configuration; only changes are sent, and endpoints are kept.

        A service with an error is left out and reported. Raises `ValueError` with all errors, one a line, if the
        configuration as a whole is invalid; the current configuration then stays.
        """
        self._spread([self._snapshot.configure(listen, services)])
        self._report_faults()

    def _spread(self, changes: Iterable[Change]) -> None:
        for change in changes:
            for session in self._sessions.values():
                session.stream.change(change)
                session.wake.set()

    def _others(self, node: str, type_url: str) -> Iterable[Subscription]:
        return (session.stream.types[type_url] for id_, session in self._sessions.items() if id_ != node)

    def _inquire(self, changes: Iterable[Change]) -> None:
        """Send the changes of an inquiry, and limit the time for which it waits."""
        self._spread(changes)
        if self._attribution.is_waiting and self._overdue is None and not self._closed:
            self._overdue = asyncio.get_running_loop().call_later(OVERDUE_SECONDS, self._continue)

    def _continue(self) -> None:
        self._overdue = None
        self._inquire(self._attribution.overdue())
        self._report_faults()

    def faults(self) -> dict[str, str]:
        """Return the errors of services, including rejections by Envoy, by service."""
        found: dict[str, str] = {}
        for session in self._sessions.values():
            for type_url, sub in session.stream.types.items():
                for resource, message in sub.rejections.items():
                    if service := self._snapshot.owner(type_url, resource):
                        found[service] = message
        return found | self._snapshot.selection.faults

    def _report_faults(self) -> None:
        if (found := self.faults()) != self._faults:
            self._faults = found
            self._on_faults(found)

    def route(self, service: str, endpoints: tuple[ir.SocketAddress, ...], held: bool = False) -> None:
        """Set the endpoints of a service; `held` if they are its hold address.

        Raises `ValueError` if they are not addresses, or the service is unknown. Envoys that request the endpoints of a
        service wait until this was called once for it.
        """
        for name in self._snapshot.route(service, endpoints, held):
            for session in self._sessions.values():
                session.stream.route(name)
                session.wake.set()

    def acked(self, service: str) -> Mapping[str, tuple[str, float | None]]:
        """Return the version of a service's endpoints that each connected Envoy acknowledged last, by node id.

        It is empty until then. The second value is when that was (seconds since the epoch), if it is the current one.
        An Envoy that has it from an earlier stream has acknowledged it; one that has not requested it has not.
        """
        held = {id_: session.stream.types[EDS] for id_, session in self._sessions.items()}
        return {id_: (sub.acked.get(service, ("", 0))[0], sub.acked_at(service)) for id_, sub in held.items()}

    def version(self, service: str) -> str:
        """Return the version of a service's current endpoints; empty while it has none."""
        present = self._snapshot.table(EDS).get(service)
        return present.version if present else ""

    def nodes(self) -> Mapping[str, Node]:
        """Return the connected Envoys by node id."""
        return {id_: session.node() for id_, session in self._sessions.items()}

    def serves(self, node: str) -> bool:
        """Return whether an Envoy has acknowledged its listeners."""
        session = self._sessions.get(node)
        return session is not None and bool(session.stream.types[LDS].acked_version)

    def open(self) -> None:
        """Start to answer. Until then Envoys may connect and wait, so that none receives a partial configuration."""
        self._opened.set()

    async def close(self) -> None:
        """End all streams, including new ones; must be awaited before the grpc.aio server is stopped."""
        self._closed = True
        if self._overdue:
            self._overdue.cancel()
        handlers = [session.handler for session in self._sessions.values() if session.handler]
        for session in self._sessions.values():
            session.finish(*_CLOSING)
        if handlers:
            await asyncio.wait(handlers, timeout=LAST_WRITE_SECONDS)

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the handler for a grpc.aio server (`add_generic_rpc_handlers`)."""
        methods = {
            "DeltaAggregatedResources": grpc.stream_stream_rpc_method_handler(partial(self._serve, DeltaStream)),
            "StreamAggregatedResources": grpc.stream_stream_rpc_method_handler(partial(self._serve, SotwStream)),
        }
        return grpc.method_handlers_generic_handler(_SERVICE, methods)

    async def _serve(self, kind: Callable[[Snapshot], Stream], requests: AsyncIterator[bytes], context: Any) -> None:
        stream, first = kind(self._snapshot), await anext(requests, None)
        if first is None:
            return
        try:
            node = stream.identify(first)
            if node is None or not node.id:
                raise MalformedError("the first request must have a node.id")
            session = self._admit(_Session(stream, node, peer_address(context.peer())))
            opening = [first]
            del first  # it may be large, and must not be kept as long as the stream
            await self._converse(session, opening, requests, context)
        except MalformedError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            raise
        if session.end.done():
            await context.abort(*session.end.result())

    def _admit(self, session: _Session) -> _Session:
        old = self._sessions.get(session.id)
        self._sessions[session.id] = session
        if old is not None:
            old.finish(grpc.StatusCode.ABORTED, f"another stream of node {session.id} took over")
        if self._closed:
            session.finish(*_CLOSING)
        self._on_node("connected", session.node())
        return session

    def _dismiss(self, session: _Session) -> None:
        if self._sessions.get(session.id) is session:
            del self._sessions[session.id]
            self._inquire(self._attribution.on_disconnect(session.id))
            self._on_node("disconnected", session.node())
            self._report_faults()

    async def _converse(
        self, session: _Session, opening: list[bytes], requests: AsyncIterator[bytes], context: Any
    ) -> None:
        """Serve the stream until it ends, with the status of `session.end` or OK. Raises `MalformedError`."""
        reading = asyncio.ensure_future(self._read(session, opening, requests))
        writing = asyncio.ensure_future(_write(session, context))
        ways: list[asyncio.Future[Any]] = [reading, writing, session.end]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            writing.cancel()
            raise
        finally:
            self._dismiss(session)
            reading.cancel()
            session.closing = True
            session.wake.set()
        # A write must not be cancelled: gRPC would not send the status that ends the stream.
        for result in await asyncio.gather(reading, writing, return_exceptions=True):
            if isinstance(result, Exception):
                raise result

    async def _read(self, session: _Session, opening: list[bytes], requests: AsyncIterator[bytes]) -> None:
        await self._opened.wait()
        self._receive(session, opening.pop())
        async for data in requests:
            self._receive(session, data)

    def _receive(self, session: _Session, data: bytes) -> None:
        now = time.time()
        had_rejections = any(sub.rejections for sub in session.stream.types.values())
        receipt = session.stream.receive(data, now)
        if any(sub.unanswered > MAX_UNANSWERED for sub in session.stream.types.values()):
            raise MalformedError(f"more than {MAX_UNANSWERED} resources are not acknowledged")
        session.wake.set()
        if receipt.acked:
            self._on_ack(session.id, receipt.acked)
        if receipt.nack is not None:
            session.nacks += 1
            self._on_node("nacked", session.node())
        if receipt.verdict is not None:
            self._inquire(self._attribution.on_verdict(session.id, receipt.verdict))
        if receipt.verdict is not None or had_rejections:
            self._report_faults()


async def _write(session: _Session, context: Any) -> None:
    """Send due responses after each change; while Envoy is slow to read, changes accumulate."""
    while True:
        await session.wake.wait()
        session.wake.clear()
        if session.closing:
            return
        for response in session.stream.flush():
            await context.write(response)
            if session.closing:
                return
            del response  # a response with all routes is large, and must not be kept while waiting
