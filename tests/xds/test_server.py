"""The server as a gRPC client sees it, without Envoy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from tests.xds.client import HELD, LISTEN, PODS, http
from tests.xds.oracle import DeltaDiscoveryRequest, DeltaDiscoveryResponse, core_v3
from tests.xds.parts import Plane, plane, until
from xds.names import CDS, EDS
from xds.server import peer_address

METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"


@asynccontextmanager
async def stream(to: Plane) -> AsyncIterator[Any]:
    """Open a stream."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{to.port}") as channel:
        call = channel.stream_stream(METHOD)()
        yield call
        call.cancel()


def ask(type_url: str, *names: str, node: str | None = "envoy") -> bytes:
    return bytes(
        DeltaDiscoveryRequest(
            node=core_v3.Node(id=node) if node is not None else None,
            type_url=type_url,
            resource_names_subscribe=list(names),
        )
    )


async def read(call: Any) -> DeltaDiscoveryResponse:
    return DeltaDiscoveryResponse.parse(await asyncio.wait_for(call.read(), 60))


async def ack(call: Any, response: DeltaDiscoveryResponse) -> None:
    await call.write(bytes(DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)))


async def ended(call: Any) -> tuple[grpc.StatusCode, str]:
    return await asyncio.wait_for(call.code(), 60), await call.details()


async def test_server_not_open_answers_nothing_until_open() -> None:
    async with plane() as running, stream(running) as call:
        await call.write(ask(CDS))
        await until(running.server.nodes, "the node")
        reading = asyncio.ensure_future(read(call))
        running.server.configure(LISTEN, [http("a")])
        running.server.route("a", HELD)
        assert running.lacking("a") == {"envoy"}
        running.server.configure(LISTEN, [http("a"), http("b")])
        assert not reading.done()
        running.server.open()
        assert {resource.name for resource in (await reading).resources} == {"a", "b"}


async def test_stream_ack_is_reported_and_kept() -> None:
    async with plane() as running, stream(running) as call:
        running.server.configure(LISTEN, [http("a")])
        running.server.route("a", HELD)
        running.server.open()
        begin = time.time()
        await call.write(ask(EDS, "a"))
        await ack(call, await read(call))
        assert await until(lambda: running.acks, "the acknowledgement") == [("envoy", ("a",))]
        assert running.having("a") == {"envoy"}
        assert not running.lacking("a")
        version, at = running.server.acked("a")["envoy"]
        assert version == running.server.version("a")
        assert at is not None and begin <= at <= time.time()
        running.server.route("a", PODS)
        assert running.lacking("a") == {"envoy"}


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.0.0.7:40000", "10.0.0.7"),
        ("ipv6:%5Bfd00::7%5D:40000", "fd00::7"),
        ("ipv6:%5B::ffff:10.0.0.7%5D:40000", "10.0.0.7"),
        ("ipv6:%5Bfe80::1%25eth0%5D:40000", "fe80::1"),
        ("unix:", ""),
    ],
)
def test_peer_address_any_peer_is_its_ip_address(peer: str, address: str) -> None:
    assert peer_address(peer) == address


async def test_server_node_address_is_that_of_its_stream() -> None:
    async with plane() as running, stream(running) as call:
        await call.write(ask(CDS))
        nodes = await until(running.server.nodes, "the node")
        assert nodes["envoy"].address == "127.0.0.1"


async def test_server_request_without_node_is_refused() -> None:
    async with plane() as running, stream(running) as call:
        running.server.open()
        await call.write(ask(CDS, node=None))
        code, details = await ended(call)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "node.id" in details
    assert not running.events


@pytest.mark.parametrize("at_first", [True, False])
async def test_server_malformed_request_ends_only_its_stream(at_first: bool) -> None:
    async with plane() as running, stream(running) as call, stream(running) as other:
        running.server.configure(LISTEN, [http("a")])
        running.server.open()
        await other.write(ask(CDS, node="other"))
        await read(other)
        if not at_first:
            await call.write(ask(CDS))
            await read(call)
        await call.write(b"\x12\x05ab")
        code, _ = await ended(call)
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        await until(lambda: set(running.server.nodes()) == {"other"}, "the end of the first")
        running.server.configure(LISTEN, [http("a"), http("b")])
        await ack(other, DeltaDiscoveryResponse(type_url=CDS, nonce="1"))
        assert [resource.name for resource in (await read(other)).resources] == ["b"]


async def test_server_second_stream_of_node_takes_over() -> None:
    async with plane() as running, stream(running) as old, stream(running) as new:
        running.server.configure(LISTEN, [http("a")])
        running.server.route("a", HELD)
        running.server.open()
        await old.write(ask(EDS, "a"))
        await ack(old, await read(old))
        await until(lambda: running.acks, "the acknowledgement")
        await new.write(ask(EDS, "a"))
        code, details = await ended(old)
        assert code is grpc.StatusCode.ABORTED
        assert "took over" in details
        assert running.lacking("a") == {"envoy"}
        await ack(new, await read(new))
        await until(lambda: running.having("a") == {"envoy"}, "the acknowledgement")
    assert [event for event, _ in running.events][:2] == ["connected", "connected"]


async def test_server_node_disconnects_is_reported() -> None:
    async with plane() as running:
        running.server.open()
        async with stream(running) as call:
            await call.write(ask(CDS))
            await read(call)
        await until(lambda: not running.server.nodes(), "the node's end")
        assert [event for event, _ in running.events] == ["connected", "disconnected"]


async def test_server_close_ends_every_stream() -> None:
    async with plane() as running, stream(running) as waiting, stream(running) as late:
        await waiting.write(ask(CDS))
        await until(running.server.nodes, "the node")
        await running.server.close()
        assert not running.server.nodes()
        await late.write(ask(CDS, node="late"))
        for call in (waiting, late):
            assert await ended(call) == (grpc.StatusCode.UNAVAILABLE, "the server is closing")
