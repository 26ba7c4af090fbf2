"""Attacks through statistics: hostile addresses, answers and delays."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import grpc
import pytest

from reconciler.core.traffic import Sample
from reconciler.envoy.admin_stats import AdminStats
from reconciler.envoy.prometheus.settings import PrometheusSettings
from reconciler.envoy.prometheus.stats import PrometheusStats
from reconciler.envoy.xds_router import XdsRouter
from tests.servers import serving
from tests.xds.oracle import DeltaDiscoveryRequest, core_v3
from xds.names import CDS

Write = Callable[[asyncio.StreamWriter], Awaitable[None]]
GOOD = b"cluster.web.upstream_rq_total: 3\nserver.uptime: 9\n"
SECRET = "s3cret"
DELTA = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"


def answer(body: bytes, status: str = "200 OK", *headers: str) -> Write:
    async def write(writer: asyncio.StreamWriter) -> None:
        head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers, "", ""]
        writer.write("\r\n".join(head).encode("latin-1") + body)

    return write


async def endless(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    lines = b"".join(b"cluster.c%d.upstream_rq_total: 1\n" % number for number in range(10_000))
    while True:
        writer.write(lines)
        await writer.drain()


@asynccontextmanager
async def server(write: Write) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Run a TCP server that reads a request and writes an attack; provides its port and the requests."""
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            requests.append(await reader.readuntil(b"\r\n\r\n"))
            await write(writer)
        except OSError:
            pass
        finally:
            writer.close()

    async with serving(serve) as port:
        yield port, requests


async def sampled(port: int, good: int) -> Sample:
    """Take one sample of a hostile Envoy and of a good one."""
    admins = {"evil": f"127.0.0.1:{port}", "good": f"127.0.0.1:{good}"}
    stats = AdminStats(lambda: admins, time.time, 30.0, range(1024, 65536))
    try:
        return await stats.sample()
    finally:
        await stats.close()


HOSTILE = {
    "foreign-figure": (answer(b"cluster.x.evil: 1\n" + GOOD), "line 1 of its answer"),
    "not-a-number": (answer(f"cluster.x.upstream_rq_total: {SECRET}\n".encode() + GOOD), "line 1 of its answer"),
    "negative": (answer(b"cluster.x.upstream_rq_total: -1\n" + GOOD), "line 1 of its answer"),
    "many-digits": (answer(b"server.uptime: " + b"9" * 5000 + b"\n"), "line 1 of its answer"),
    "long-line": (answer(b"x" * 100_000), "exceeds 512 bytes"),
    "no-uptime": (answer(b"cluster.x.upstream_rq_total: 1\n"), "no server.uptime"),
    "gzip": (answer(gzip.compress(GOOD), "200 OK", "Content-Encoding: gzip"), "compressed"),
    "redirect": (answer(b"", "302 Found", f"Location: http://{SECRET}/"), "HTTP status 302"),
    "reason-phrase": (answer(b"", f"500 {SECRET}\x1b[31m"), "HTTP status 500"),
    "not-http": (answer(b"", f"{SECRET} {SECRET}"), "not valid HTTP"),
    "endless": (endless, "exceeds 120000 lines"),
}


@pytest.mark.parametrize(("write", "why"), HOSTILE.values(), ids=HOSTILE.keys())
async def test_statistics_hostile_answer_makes_one_reading_unknown(write: Write, why: str) -> None:
    async with server(write) as (port, _), server(answer(GOOD)) as (good, _):
        sample = await sampled(port, good)
    assert set(sample.envoys) == {"good"}
    assert why in sample.missing["evil"]
    assert SECRET not in sample.missing["evil"]


async def test_statistics_redirect_is_not_followed() -> None:
    async with server(answer(GOOD)) as (victim, asked):
        leads = answer(b"", "307 Temporary Redirect", f"Location: http://127.0.0.1:{victim}/stats")
        async with server(leads) as (port, requests), server(answer(GOOD)) as (good, _):
            await sampled(port, good)
    assert asked == []
    assert b"Accept-Encoding: identity\r\n" in requests[0]


async def test_statistics_port_not_allowed_is_not_asked() -> None:
    async with server(answer(GOOD)) as (port, asked):
        stats = AdminStats(lambda: {"evil": f"127.0.0.1:{port}"}, time.time, 2.0)
        sample = await stats.sample()
        await stats.close()
    assert asked == []
    assert "--stats-ports: 9902" in sample.missing["evil"]


async def test_statistics_other_host_named_own_address_is_asked() -> None:
    """A stream of the discovery service, whose node names statistics at another host."""
    joined = asyncio.Event()
    router = XdsRouter(lambda _: None, lambda *_: None, lambda _: None, joined.set)
    plane = grpc.aio.server()
    plane.add_generic_rpc_handlers((router.server.handler(),))
    port = plane.add_insecure_port("127.0.0.1:0")
    await plane.start()
    metadata = {"zenvoy": {"stats": "10.255.255.1:9902"}}
    node = core_v3.Node.from_dict({"id": "evil", "metadata": metadata})
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stream = channel.stream_stream(DELTA)()
        await stream.write(bytes(DeltaDiscoveryRequest(node=node, type_url=CDS)))
        await asyncio.wait_for(joined.wait(), 60)
        assert router.stats() == {"evil": "127.0.0.1:9902"}
        stream.cancel()
    await router.server.close()
    await plane.stop(None)


def asked(result: object, **more: object) -> bytes:
    return json.dumps({"status": "success", "data": {"result": result}, **more}).encode()


PROMETHEUS = {
    "deep": (answer(b'{"data":' + b"[" * 1_000_000), "nested too deeply"),
    "array": (answer(b"[" * 1_000_000), "cannot be parsed"),
    "not-json": (answer(SECRET.encode()), "cannot be parsed"),
    "nan-time": (answer(asked([0, "NaN"])), "its time is not a number"),
    "warning": (answer(asked([], warnings=[SECRET])), "it has warnings"),
    "error": (answer(json.dumps({"status": "error", "error": SECRET}).encode(), "400 Bad"), "HTTP status 400"),
    "redirect": (answer(b"", "302 Found", "Location: http://127.0.0.1:1/"), "redirects are not followed"),
    "gzip": (answer(gzip.compress(asked([])), "200 OK", "Content-Encoding: gzip"), "compressed"),
    "key": (answer(json.dumps({SECRET: 1}).encode()), "cannot be parsed"),
}


@pytest.mark.parametrize(("write", "why"), PROMETHEUS.values(), ids=PROMETHEUS.keys())
async def test_prometheus_hostile_answer_makes_sample_unknown(write: Write, why: str) -> None:
    async with server(write) as (port, _):
        settings = PrometheusSettings(f"http://127.0.0.1:{port}", 1.0, timeout=60.0)
        stats = PrometheusStats(settings, time.time, lambda: frozenset({"one"}))
        sample = await stats.sample()
        await stats.close()
    assert sample.source_failed
    assert why in sample.missing["one"]
    assert SECRET not in sample.missing["one"]


class Cut(PrometheusSettings):
    """Settings whose bound on a whole answer comes long before that on each read, however late that is."""

    @property
    def seconds_max(self) -> float:
        return 1.5


async def test_prometheus_answer_that_never_ends_is_cut() -> None:
    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with server(drip) as (port, _):
        settings = Cut(f"http://127.0.0.1:{port}", 1.0, timeout=60.0)
        stats = PrometheusStats(settings, time.time, lambda: frozenset({"one"}))
        sample = await stats.sample()
        await stats.close()
    assert "not complete after 1.5 s" in sample.missing["one"]
