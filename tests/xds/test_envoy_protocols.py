"""Every protocol reaches its service through real Envoy, and what is in flight survives when the service moves."""

from __future__ import annotations

import asyncio
import resource
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import grpc.aio
import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from tests.ports import free_port
from tests.xds.conftest import Stage
from tests.xds.parts import echoes, http_get, pages, until, until_async, upstream
from xds import ir

pytestmark = pytest.mark.envoy
CERTIFICATE = Path(__file__).with_name("tls.pem")

V2_HEADER = b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes([192, 0, 2, 7, 192, 0, 2, 8, 0, 1, 0, 2])
OTHER_CLIENT = {
    b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\n": (b"192.0.2.7", b"192.0.2.9"),
    V2_HEADER: (bytes([192, 0, 2, 7]), bytes([192, 0, 2, 9])),
}


def http(name: str, protocol: ir.ServiceProtocol = ir.ServiceProtocol.HTTP) -> ir.Upstream:
    return ir.Upstream(name, protocol, (name, f"{name}.localhost"))


def tcp(name: str, port: int) -> ir.Upstream:
    return ir.Upstream(name, ir.ServiceProtocol.TCP, listen=ir.SocketAddress("127.0.0.1", port))


async def line(port: int, text: str = "") -> str:
    """Connect, say a line, and return all lines that come back until the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(text.encode())
        writer.write_eof()
        return (await reader.read()).decode()
    finally:
        writer.close()


async def test_http_host_with_port_is_routed_unchanged(stage: Stage) -> None:
    async with upstream(pages("a")) as a, upstream(pages("b"), host="::1") as b:
        await stage.serve((http("a"), (a,)), (http("b"), (b,)))
        assert await http_get(stage.http, "a") == (200, "a for a")
        assert await http_get(stage.http, f"A.localhost:{stage.http}") == (200, f"a for A.localhost:{stage.http}")
        assert await http_get(stage.http, "b.localhost") == (200, "b for b.localhost")
        assert (await http_get(stage.http, "b", http="1.0"))[0] == 200
        status, text = await http_get(stage.http, "c.localhost")
        assert (status, text) == (404, "zenvoy: no service has the host name c.localhost\n")


async def test_http_own_port_leads_every_host_to_its_service(stage: Stage) -> None:
    port, ignore = free_port(), (ir.IgnoreMatch(("/healthz",), body="asleep"),)
    own = replace(http("a"), listen=ir.SocketAddress("127.0.0.1", port), ignore=ignore)
    async with upstream(pages("holder")) as holder, upstream(pages("pod")) as pod, upstream(pages("b")) as other:
        await stage.serve((own, ()), (http("b"), (other,)))
        stage.plane.server.route("a", (holder,), held=True)
        await stage.plane.everywhere("a")
        await stage.envoy.listens(port)
        hosts = ("a", "b", "other.example.com", "192.0.2.1")
        assert [await http_get(port, host) for host in hosts] == [(200, f"holder for {host}") for host in hosts]
        for at, host in ((port, "other.example.com"), (stage.http, "a")):
            assert await http_get(at, host, path="/healthz") == (200, "asleep")
        listeners = await stage.envoy.stats("listener_manager.listener_.*")
        await stage.move("a", pod)
        assert [await http_get(port, host, path="/healthz") for host in hosts] == [
            (200, f"pod for {host}") for host in hosts
        ]
        assert await http_get(stage.http, "a") == (200, "pod for a")
        assert (await http_get(stage.http, "other.example.com"))[0] == 404
        assert await stage.envoy.stats("listener_manager.listener_.*") == listeners, "a wake changes endpoints only"


async def test_http_refusing_endpoint_is_retried_elsewhere(stage: Stage) -> None:
    port = free_port()
    dead = ir.SocketAddress("127.0.0.1", free_port())
    async with upstream(pages("a")) as web, upstream(echoes("hello")) as db:
        await stage.serve((http("a"), (dead, web)), (tcp("db", port), (dead, db)))
        answers = [await http_get(stage.http, "a") for _ in range(20)]
        assert answers == [(200, "a for a")] * 20
        await stage.envoy.listens(port)
        assert [await line(port) for _ in range(20)] == ["hello\n"] * 20


async def test_http_client_holder_restarts_waits(stage: Stage) -> None:
    address, port = ir.SocketAddress("127.0.0.1", free_port()), free_port()
    await stage.serve((http("a"), (address,)), (tcp("db", port), (address,)))
    await stage.envoy.listens(port)
    asked = asyncio.create_task(http_get(stage.http, "a"))
    connected = asyncio.create_task(line(port, "GET / HTTP/1.1\r\nHost: db\r\nConnection: close\r\n\r\n"))

    async def retried() -> bool:
        failed = await stage.envoy.stats("cluster.*upstream_cx_connect_fail")
        return all(failed.get(f"cluster.{name}.upstream_cx_connect_fail", 0) >= 5 for name in ("a", "db"))

    await until_async(retried, "some dials of each to fail")
    async with upstream(pages("a"), port=address.port):
        assert await asked == (200, "a for a")
        assert "a for db" in await connected


@pytest.mark.parametrize("header", [b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\n", V2_HEADER], ids=["v1", "v2"])
async def test_proxy_protocol_header_has_the_client(stage: Stage, header: bytes) -> None:
    """A service that ignores another client receives the connection, and one that ignores this client does not."""
    port = free_port()
    options = ir.ListenerOptions(http_proxy_protocol=True, tcp_proxy_protocol=frozenset({port}))
    ignored = (ir.IgnoreMatch(sources=("192.0.2.7",), status=202),)
    web, db = replace(http("a"), ignore=ignored), tcp("db", port)
    async with upstream(pages("a")) as held, upstream(echoes("hello")) as pod:
        listen = ir.Listen(http=ir.SocketAddress("127.0.0.1", stage.http), options=options)
        stage.plane.server.configure(listen, (web, db))
        stage.plane.server.route("a", (held,), held=True)
        stage.plane.server.route("db", (pod,))
        stage.plane.server.open()
        await stage.plane.everywhere("a", "db")
        await stage.envoy.listens(port)
        for header_sent, status in ((header, b"202"), (header.replace(*OTHER_CLIENT[header]), b"200")):
            answer = await sent(stage.http, header_sent + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert answer.split()[1] == status
        assert await sent(port, header) == b"hello\n"


async def test_health_path_while_draining_is_unavailable(stage: Stage) -> None:
    options = ir.ListenerOptions(health_path="/up")
    stage.plane.server.configure(ir.Listen(ir.SocketAddress("127.0.0.1", stage.http), options=options), ())
    stage.plane.server.open()
    await stage.envoy.listens(stage.http)
    ask = b"GET /up HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n"
    assert (await sent(stage.http, ask)).split()[1] == b"200"
    connector = aiohttp.UnixConnector(str(stage.envoy.admin))
    async with aiohttp.ClientSession(connector=connector) as admin:
        await admin.post("http://admin/healthcheck/fail")
    assert (await sent(stage.http, ask)).split()[1] == b"503"


async def sent(port: int, data: bytes) -> bytes:
    """Send data, and return the first line that comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        return await reader.readline()
    finally:
        writer.close()


async def test_websocket_service_moves_is_not_cut(stage: Stage) -> None:
    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async with serve(echo, "127.0.0.1", 0) as server, upstream(pages("hold")) as hold:
        pod = ir.SocketAddress("127.0.0.1", server.sockets[0].getsockname()[1])
        await stage.serve((http("ws"), (pod,)))
        async with connect("ws://ws.localhost/", host="127.0.0.1", port=stage.http) as socket:
            await socket.send("before")
            assert await socket.recv() == "before"
            await stage.move("ws", hold)
            assert await http_get(stage.http, "ws") == (200, "hold for ws")
            await socket.send("after")
            assert await socket.recv() == "after"
            await stage.move("ws")
            await socket.send("without any endpoint")
            assert await socket.recv() == "without any endpoint"


async def test_tcp_connection_service_moves_is_not_cut(stage: Stage) -> None:
    port = free_port()
    async with upstream(echoes("pods")) as pods, upstream(echoes("hold")) as hold:
        await stage.serve((tcp("db", port), (pods,)))
        await stage.envoy.listens(port)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.readline() == b"pods\n"
        await stage.move("db", hold)
        assert await line(port, "x\n") == "hold\nx\n"
        writer.write(b"still here\n")
        assert await reader.readline() == b"still here\n"
        writer.close()


async def test_http_long_response_service_moves_is_not_cut(stage: Stage) -> None:
    go_on = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nbef")
        await go_on.wait()
        writer.write(b"ore")
        writer.close()

    async with upstream(slow) as pods, upstream(pages("hold")) as hold:
        await stage.serve((http("a"), (pods,)))
        answer = asyncio.ensure_future(http_get(stage.http, "a"))

        async def in_flight() -> bool:
            return (await stage.envoy.stats("cluster.a.upstream_rq_active")).get("cluster.a.upstream_rq_active") == 1

        await until_async(in_flight, "a request in flight")
        await stage.move("a", hold)
        assert await http_get(stage.http, "a") == (200, "hold for a")
        go_on.set()
        assert await answer == (200, "before")


async def test_tls_server_name_is_passed_through(stage: Stage) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    trust = ssl.create_default_context(cafile=str(CERTIFICATE))
    secret = ir.Upstream("secret", ir.ServiceProtocol.TLS, ("secret.localhost",))
    other = ir.Upstream("other", ir.ServiceProtocol.TLS, ("Other.localhost",))

    async def greeting(name: str) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.tls, ssl=trust, server_hostname=name)
        try:
            return await reader.readline()
        finally:
            writer.close()

    async with upstream(echoes("secret"), ssl=context) as a, upstream(echoes("other"), ssl=context) as b:
        await stage.serve((secret, (a,)), (other, (b,)))
        await stage.envoy.listens(stage.tls)
        assert await greeting("secret.localhost") == b"secret\n"
        assert await greeting("other.localhost") == b"other\n"
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await greeting("unknown.localhost")


async def test_tls_connection_other_services_change_is_not_cut(stage: Stage) -> None:
    """They share a listener, of which Envoy drains only the filter chains that changed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    trust = ssl.create_default_context(cafile=str(CERTIFICATE))
    stays, goes, comes = (
        ir.Upstream(name, ir.ServiceProtocol.TLS, (f"{name}.localhost",)) for name in ("secret", "other", "z")
    )

    async def connected(name: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", stage.tls, ssl=trust, server_hostname=name)

    async with upstream(echoes("hello"), ssl=context) as a:
        await stage.serve((stays, (a,)), (goes, (a,)))
        await stage.envoy.listens(stage.tls)
        reader, writer = await connected("secret.localhost")
        gone, other = await connected("other.localhost")
        assert (await reader.readline(), await gone.readline()) == (b"hello\n", b"hello\n")
        await stage.serve((comes, (a,)), (stays, (a,)))
        assert await asyncio.wait_for(gone.read(), 60) == b"", "the drain of what goes is over"
        other.close()
        writer.write(b"still here\n")
        assert await asyncio.wait_for(reader.readline(), 60) == b"still here\n"
        writer.close()
        stats = await stage.envoy.stats("listener_manager")
        assert stats["listener_manager.listener_in_place_updated"] == 1


async def test_h2c_grpc_streams_both_ways(stage: Stage) -> None:
    async def double(requests: AsyncIterator[bytes], context: Any) -> None:
        async for request in requests:
            await context.write(request * 2)

    server = grpc.aio.server()
    handlers = {"Double": grpc.stream_stream_rpc_method_handler(double)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Doubler", handlers),))
    pod = ir.SocketAddress("127.0.0.1", server.add_insecure_port("127.0.0.1:0"))
    await server.start()
    try:
        await stage.serve((http("rpc", ir.ServiceProtocol.H2C), (pod,)))
        options = [("grpc.default_authority", "rpc.localhost")]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{stage.http}", options=options) as channel:
            call = channel.stream_stream("/test.Doubler/Double")()
            for word in (b"a", b"b"):
                await call.write(word)
                assert await asyncio.wait_for(call.read(), 60) == word * 2
            await call.done_writing()
            assert await asyncio.wait_for(call.code(), 60) is grpc.StatusCode.OK
    finally:
        await server.stop(None)


async def test_envoy_many_held_connections_exceed_default_limits(stage: Stage) -> None:
    """Envoy's circuit breakers stop at 1,024 connections and 1,024 waiting requests, without a log line."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count, port = 1100, free_port()
    held = 0
    let_go = asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal held
        held += 1
        await let_go.wait()
        writer.write(b"released\n")
        writer.close()

    async with upstream(hold, backlog=count) as holder, AsyncExitStack() as stack:
        await stage.serve((tcp("db", port), (holder,)))
        await stage.envoy.listens(port)
        held = 0
        readers = []
        for _ in range(count):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            stack.callback(writer.close)
            readers.append(reader)
        await until(lambda: held >= count, f"{count} held connections")
        let_go.set()
        assert [await reader.readline() for reader in readers] == [b"released\n"] * count
