"""Checks of real servers, and what they may not do."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from reconciler.kubernetes.workloads.probes import client
from reconciler.kubernetes.workloads.probes.checks import GrpcCheck, HttpCheck, TcpCheck
from tests.certificates import Authority
from tests.ports import free_port
from tests.servers import serving

HERE = "127.0.0.1"
GENEROUS_SECONDS = 60.0


@asynccontextmanager
async def answering(
    answer: bytes, got: Callable[[bytes], Any] = len, ip: str = HERE, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Answer each request with these bytes, and provide the port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            got(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)
            await writer.drain()
            await reader.read()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async with serving(serve, ip, ssl=tls) as port:
        yield port


def get(port: int, path: str = "/ready", seconds: float = GENEROUS_SECONDS, **more: Any) -> HttpCheck:
    return HttpCheck(port, seconds, path, more.get("headers", ()), more.get("tls", False))


def response(status: str, headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\n{headers}Content-Length: 2\r\n\r\nok".encode()


@pytest.mark.parametrize(
    ("status", "passes"),
    [("200 OK", True), ("201 Created", True), ("404 Not Found", False), ("503 Starting", False), ("500", False)],
)
async def test_http_passes_by_status(status: str, passes: bool) -> None:
    async with answering(response(status)) as port:
        assert await client.run(HERE, get(port)) is passes


async def test_http_request_is_as_written() -> None:
    requests: list[bytes] = []
    async with answering(response("200 OK"), requests.append) as port:
        assert await client.run(HERE, get(port, "/ready?full=1"))
        headers = (("Host", "shop.example.com"), ("X-Probe", "1"), ("user-agent", "own/1"))
        assert await client.run(HERE, get(port, "status", headers=headers))
    plain, own = (request.decode().split("\r\n") for request in requests)
    assert plain[0] == "GET /ready?full=1 HTTP/1.1"
    assert sorted(plain[1:-2]) == [
        "Accept: */*",
        "Connection: close",
        f"Host: {HERE}:{port}",
        "User-Agent: kube-probe/zenvoy",
    ]
    assert own[0] == "GET /status HTTP/1.1"
    assert {"Host: shop.example.com", "X-Probe: 1", "user-agent: own/1"} <= set(own)
    assert not [line for line in own if "kube-probe" in line]


async def test_http_ipv6_passes() -> None:
    async with answering(response("200 OK"), ip="::1") as port:
        assert await client.run("::1", get(port))


async def test_http_unverified_tls_passes(tmp_path: Path) -> None:
    pair = Authority(tmp_path / "authority").sign(tmp_path / "pair", "other.example.com")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair / "tls.crt", pair / "tls.key")
    async with answering(response("200 OK"), tls=context) as port:
        assert await client.run(HERE, get(port, tls=True))
        assert not await client.run(HERE, get(port))


async def test_http_redirect_is_not_followed() -> None:
    reached: list[bytes] = []
    async with answering(response("200 OK"), reached.append) as other:
        location = f"Location: http://{HERE}:{other}/\r\n"
        async with answering(response("302 Found", location)) as port:
            assert not await client.run(HERE, get(port))
    assert not reached


@pytest.mark.parametrize("path", ["@localhost/", "//localhost/", "/%0d%0aHost:%20x", "/a b\r\nX: y", "/\u00e9"])
async def test_http_path_cannot_change_the_host(path: str) -> None:
    requests: list[bytes] = []
    async with answering(response("200 OK"), requests.append) as port:
        await client.run(HERE, get(port, path))
    for request in requests:
        lines = request.decode().split("\r\n")
        assert lines[0].startswith("GET /")
        assert [line for line in lines if line.lower().startswith(("host:", "x:"))] == [f"Host: {HERE}:{port}"]


@pytest.mark.parametrize("header", [("X", "a\r\nY: b"), ("X", "a\nY: b"), ("X", "\x00"), ("X\r\nY", "b"), ("", "b")])
async def test_http_invalid_header_does_not_pass(header: tuple[str, str]) -> None:
    async with answering(response("200 OK")) as port:
        assert not await client.run(HERE, get(port, headers=(header,)))


async def test_http_answer_without_end_does_not_pass(tmp_path: Path) -> None:
    pair = Authority(tmp_path / "authority").sign(tmp_path / "pair", "other.example.com")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair / "tls.crt", pair / "tls.key")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)
                await writer.drain()
        except OSError:
            writer.close()

    for tls in (None, context):
        async with serving(serve, HERE, ssl=tls) as port:
            assert not await client.run(HERE, get(port, tls=tls is not None))


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 " + b"a" * 100_000,
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 1000 + b"\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,
        b"HTTP/1.1 102 Processing\r\n" + b"X: a\r\n" * 1000 + b"\r\nHTTP/1.1 200 OK\r\n\r\n",
    ],
)
async def test_http_answer_is_bounded(answer: bytes) -> None:
    async with answering(answer) as port:
        assert not await client.run(HERE, get(port))


async def test_http_body_is_not_awaited() -> None:
    async with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n") as port:
        assert await client.run(HERE, get(port))


async def test_checks_without_answer_do_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_TIMEOUT_SECONDS", 0.2)
    with socket.create_server((HERE, 0)) as silent:
        port = silent.getsockname()[1]
        assert not await client.run(HERE, get(port, seconds=3600))
        assert not await client.run(HERE, GrpcCheck(port, 3600, ""))


async def test_checks_of_closed_port_do_not_pass() -> None:
    port = free_port()
    assert not await client.run(HERE, get(port))
    assert not await client.run(HERE, TcpCheck(port, GENEROUS_SECONDS))
    assert not await client.run(HERE, GrpcCheck(port, GENEROUS_SECONDS, ""))


async def test_tcp_listener_passes() -> None:
    with socket.create_server((HERE, 0)) as server:
        assert await client.run(HERE, TcpCheck(server.getsockname()[1], GENEROUS_SECONDS))


async def test_grpc_passes_by_serving_status() -> None:
    server, servicer = grpc.aio.server(), health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port(f"{HERE}:0")
    await server.start()
    try:
        await servicer.set("shop.Cart", health_pb2.HealthCheckResponse.NOT_SERVING)
        assert await client.run(HERE, GrpcCheck(port, GENEROUS_SECONDS, ""))
        assert not await client.run(HERE, GrpcCheck(port, GENEROUS_SECONDS, "shop.Cart"))
        assert not await client.run(HERE, GrpcCheck(port, GENEROUS_SECONDS, "unknown"))
        await servicer.set("shop.Cart", health_pb2.HealthCheckResponse.SERVING)
        assert await client.run(HERE, GrpcCheck(port, GENEROUS_SECONDS, "shop.Cart"))
    finally:
        await server.stop(None)


async def test_grpc_of_another_server_does_not_pass() -> None:
    async with answering(response("200 OK")) as port:
        assert not await client.run(HERE, GrpcCheck(port, 1.0, ""))
