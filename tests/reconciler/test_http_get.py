"""Tests of the HTTP client for questions to programs, against real servers that answer with any bytes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from reconciler.http_get import NoStatus, get_status
from tests.ports import free_port
from tests.servers import serving

GENEROUS_SECONDS = 60.0


class Server:
    """A server that answers each connection with the same bytes, and keeps the requests."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self.requests: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(self._answer)
        writer.close()


@asynccontextmanager
async def answering(answer: bytes, host: str = "127.0.0.1") -> AsyncIterator[tuple[int, Server]]:
    one = Server(answer)
    async with serving(one.serve, host) as port:
        yield port, one


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200),
        (b"HTTP/1.0 204\r\n\r\n", 204),
        (b"HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\n\r\n", 302),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 102 \r\n\r\nHTTP/1.1 204 \r\n\r\n", 204),
        (b"HTTP/1.1 200 OK\nServer: bare line feeds\n\n", 200),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_000_000, 200),
    ],
)
async def test_status_is_read_and_nothing_else(answer: bytes, status: int) -> None:
    async with answering(answer) as (port, server):
        assert await get_status("127.0.0.1", port, "/busy?x=1", GENEROUS_SECONDS) == status
        head, *fields = server.requests[0].decode().split("\r\n")
        assert head == "GET /busy?x=1 HTTP/1.1"
        assert f"Host: 127.0.0.1:{port}" in fields and "Connection: close" in fields
        assert len(server.requests) == 1, "a redirect is not followed"


@pytest.mark.parametrize(
    "answer",
    [
        b"\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 200 " + b"x" * 100_000 + b"\r\n\r\n",
        b"\x00" * 100_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,
        b"HTTP/1.1 103 Early Hints\r\n" + b"Link: </a.css>\r\n" * 1000,
    ],
)
async def test_answer_that_is_not_http_has_no_status(answer: bytes) -> None:
    async with answering(answer) as (port, _):
        with pytest.raises(NoStatus, match="is not answered") as raised:
            await get_status("127.0.0.1", port, "/busy", GENEROUS_SECONDS)
        assert raised.value.is_not_http or "reset" in str(raised.value)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"])
async def test_closed_connection_has_no_status(answer: bytes) -> None:
    async with answering(answer) as (port, _):
        with pytest.raises(NoStatus, match="is not answered: the connection is closed") as raised:
            await get_status("127.0.0.1", port, "/busy", GENEROUS_SECONDS)
        assert not raised.value.is_not_http, "a program that starts may do so"


async def test_refused_connection_has_no_status() -> None:
    with pytest.raises(NoStatus, match=r"is not answered: .*(Connect call failed|refused)"):
        await get_status("127.0.0.1", free_port(), "/busy", GENEROUS_SECONDS)


async def test_silent_server_has_no_status_in_time() -> None:
    timed_out = pytest.raises(NoStatus, match=r"is not answered within 0\.05 s")
    with socket.create_server(("127.0.0.1", 0)) as silent, timed_out:
        await get_status("127.0.0.1", silent.getsockname()[1], "/busy", 0.05)


async def test_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    async with answering(b"HTTP/1.1 200 OK\r\n\r\n") as (port, _):
        assert await get_status("127.0.0.1", port, "/busy", GENEROUS_SECONDS) == 200


async def test_ipv6_address_is_in_brackets() -> None:
    async with answering(b"HTTP/1.1 200 OK\r\n\r\n", "::1") as (port, server):
        assert await get_status("::1", port, "/", GENEROUS_SECONDS) == 200
        assert f"Host: [::1]:{port}".encode() in server.requests[0]
