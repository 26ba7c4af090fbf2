"""The gRPC port of one replica, with mutual TLS and admission, and peers that dial it from addresses of their choice.

The servers, the engine and the connections are real. The endpoints of zenvoy's Services are the test's; in a cluster
they come from EndpointSlices. Addresses of 127.0.0.0/8 stand for pods.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from reconciler.core.access import PROXY, RECONCILER, Listed
from reconciler.envoy import xds_router
from reconciler.replication import leader, messages
from reconciler.server import holders
from reconciler.server.admission import Admission, Limits
from reconciler.server.credentials import x509
from reconciler.server.credentials.material import Material, Server, channel
from tests.reconciler.replication.test_peers import POD, WEB, Everything, Replica, Tls
from tests.servers import serving
from tests.xds.oracle import DeltaDiscoveryRequest, core_v3
from tproxy import wire
from xds.names import CDS, EDS

NAME = "zenvoy-reconciler.zenvoy-system.svc"
REPLICA, OTHER_REPLICA = "127.0.0.11", "127.0.0.12"
PROXY_A, PROXY_B, STRANGER = "127.0.0.21", "127.0.0.22", "127.0.0.66"
PODS = {PROXY_A: "proxy-a", PROXY_B: "proxy-b"}
CLAIMS = {**xds_router.CLAIMS, **holders.CLAIMS, **leader.CLAIMS}
ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
HOLDER, PEER = wire.METHOD, "/zenvoy.v1.Peer/Stream"
PATIENCE_SECONDS = 60.0
ROLES = [PROXY.uri, RECONCILER.uri]


async def until(condition: Callable[[], Any], what: str) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():
            await asyncio.sleep(0.005)
    assert condition(), what


class Authority:
    """The installation's authority, as the reconciler makes it."""

    def __init__(self) -> None:
        now = time.time()
        self._validity = x509.Validity(now - 60, now + 3600)
        self._pair = x509.new_authority("zenvoy", self._validity)

    def material(self, uri: str, dns: tuple[str, ...] = (), common_name: str = "peer") -> Material:
        subject = x509.Subject(common_name, uri, dns, serves=bool(dns))
        pair = x509.sign(self._pair, subject, self._validity)
        return Material(pair.certificate, pair.key, self._pair.certificate)

    def write(self, directory: Path, uri: str) -> Path:
        """Write a certificate as Kubernetes mounts it."""
        directory.mkdir()
        made = self.material(uri)
        for name, content in (("tls.crt", made.certificate), ("tls.key", made.key), ("ca.crt", made.authority)):
            (directory / name).write_bytes(content)
        return directory


@asynccontextmanager
async def dialling_from(address: str, port: int) -> AsyncIterator[int]:
    """Provide a port whose connections reach another port of this machine from a chosen address."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
            await asyncio.gather(copy(reader, there[1]), copy(there[0], writer))
        except OSError:
            pass
        finally:
            writer.close()

    async with serving(serve) as at:
        yield at


@dataclass
class Endpoints:
    """The endpoints of the proxy's Service, by address; None: they are not known."""

    proxies: dict[str, str] | None


class Stream:
    """An open stream, and how to open the same one again."""

    def __init__(self, call: Any, again: Callable[[], Awaitable[Stream]]) -> None:
        self._call, self.again = call, again

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)


class Port:
    """A leader's gRPC port."""

    def __init__(
        self, replica: Replica, admission: Admission, authority: Authority, listed: Endpoints, stack: AsyncExitStack
    ) -> None:
        self.replica, self.admission, self.authority, self.listed = replica, admission, authority, listed
        self.number = int(replica.address.rpartition(":")[2])
        self.dialed = 0
        """Streams that were opened; `says` opens another one if it has not seen how one ended."""
        self._stack = stack

    async def dial(self, address: str, uri: str | None, method: str = ADS) -> Stream:
        """Open a stream from that address with a certificate of that URI, or without encryption."""
        self.dialed += 1
        port = await self._stack.enter_async_context(dialling_from(address, self.number))
        options = [("grpc.ssl_target_name_override", NAME), ("grpc.use_local_subchannel_pool", 1)]
        options += [("grpc.enable_retries", 0), ("grpc.http2.bdp_probe", 0)]
        if uri is None:
            made = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options)
        else:
            made = grpc.aio.secure_channel(f"127.0.0.1:{port}", channel(self.authority.material(uri)), options=options)
        await self._stack.enter_async_context(made)
        return Stream(made.stream_stream(method)(), lambda: self.dial(address, uri, method))

    @property
    def nodes(self) -> dict[str, str]:
        """Return the connected Envoys and their addresses."""
        return {id_: node.address for id_, node in self.replica.router.server.nodes().items()}

    def is_owed(self, node: str, responses: int) -> bool:
        """Return whether an Envoy has so many unanswered responses about endpoints."""
        session = self.replica.router.server._sessions.get(node)
        return session is not None and len(session.stream.types[EDS].pending) == responses

    @property
    def known(self) -> set[str]:
        """Return the Envoys, holders and replicas that the leader expects, connected or missing."""
        ledger = self.replica.peers.members.ledger
        return {*ledger.envoys.known, *ledger.holders.known, *ledger.followers}

    @property
    def may_sleep(self) -> bool:
        return self.replica.peers.members.unknown() is None


@asynccontextmanager
async def port(
    pods: dict[str, str] | None = None, limits: Limits | None = None, encrypted: bool = True, running: int = 0
) -> AsyncIterator[Port]:
    """Run a leader with one service, `running` replicas of it."""
    authority, listed = Authority(), Endpoints(dict(PODS if pods is None else pods))
    shared = Everything({REPLICA}, holder=REPLICA)
    admission = Admission(CLAIMS, lambda: Listed(listed.proxies, frozenset({REPLICA, OTHER_REPLICA})), limits=limits)
    own = authority.material(RECONCILER.uri, (NAME,))
    tls = Tls(Server(lambda: own).credentials, lambda: channel(own), NAME) if encrypted else None
    replica = Replica(REPLICA, shared, [WEB], 30.0, (admission,), tls)
    async with AsyncExitStack() as stack:
        await replica.start()
        stack.push_async_callback(replica.stop)
        replica.runs(running, *([POD] if running else []))
        replica.leads()
        yield Port(replica, admission, authority, listed, stack)


def asks(node: str, type_url: str = CDS, *names: str, **more: Any) -> bytes:
    """Return the request of an Envoy."""
    return bytes(
        DeltaDiscoveryRequest(
            node=core_v3.Node(id=node), type_url=type_url, resource_names_subscribe=list(names), **more
        )
    )


def introduces(method: str, name: str, *counts: wire.Count) -> bytes:
    """Return the first message of a stream, under that name."""
    if method == ADS:
        return asks(name, EDS, WEB.name)
    if method == HOLDER:
        return wire.ENCODER.encode(wire.HolderReport(counts=counts, hello=wire.HolderHello(name, "anyip")))
    return messages.ENCODER.encode(messages.FollowerMessage(messages.FollowerHello(name), messages.Fleet()))


async def ended(call: Any) -> tuple[grpc.StatusCode, str]:
    """Read a stream to its end, and return how it ends."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        try:
            while await call.read() is not grpc.aio.EOF:
                pass
        except grpc.aio.AioRpcError:
            pass
        return await call.code(), await call.details()


async def says(stream: Stream, *messages: bytes) -> tuple[grpc.StatusCode, str]:
    """Send messages, as far as the other end takes them, and return how the stream ends."""
    ending = asyncio.ensure_future(ended(stream))
    try:
        for message in messages:
            await stream.write(message)
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        pass
    code, details = await ending
    # The client's own word for a stream that ended while it was writing: how it ended was not seen.
    return await says(await stream.again(), *messages) if code is grpc.StatusCode.INTERNAL else (code, details)
