"""Draining of a real Envoy: requests in flight finish first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from reconciler.envoy.drain import EnvoyUnreachable, _load, drain
from tests.ports import free_port
from tests.xds.parts import echoes, envoy, pages, plane, upstream
from xds import ir

pytestmark = pytest.mark.envoy
LOCAL = "127.0.0.1"
PATIENCE_SECONDS = 60.0


class Scene:
    """An Envoy with an HTTP and a TCP service."""

    def __init__(self, admin: str, http: int, tcp: int) -> None:
        self.admin, self.http, self.tcp = admin, http, tcp
        self.said: list[str] = []

    async def drained(self, limit: float = 60, settle: float = 0, quiet: float = 60) -> bool:
        return await asyncio.to_thread(drain, self.admin, limit, settle, quiet, self.said.append)

    async def has(self, clients: int, in_flight: int) -> None:
        """Wait until Envoy has this load, and no longer the connections of earlier clients."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await asyncio.to_thread(_load, self.admin) != (clients, in_flight):
                await asyncio.sleep(0.01)


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with (
        plane() as running,
        envoy(tmp_path, running.port) as joined,
        upstream(echoes("hi")) as tcp,
        upstream(pages("page")) as http,
    ):
        at, stream_at = free_port(), free_port()
        running.server.configure(
            ir.Listen(http=ir.SocketAddress(LOCAL, at)),
            [
                ir.Upstream("shop/web", ir.ServiceProtocol.HTTP, domains=("web",)),
                ir.Upstream("shop/db", ir.ServiceProtocol.TCP, listen=ir.SocketAddress(LOCAL, stream_at)),
            ],
        )
        running.server.route("shop/web", (http,))
        running.server.route("shop/db", (tcp,))
        running.server.open()
        await joined.listens(at)
        await joined.listens(stream_at)
        await running.everywhere("shop/web", "shop/db")
        yield Scene(str(joined.admin), at, stream_at)


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    writer.write(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    await reader.readexactly(int(head.partition("content-length:")[2].partition("\r\n")[0]))
    return head


async def accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(LOCAL, port)
    except ConnectionRefusedError:
        return False
    writer.close()
    return True


async def test_drain_without_clients_closes_listeners(scene: Scene) -> None:
    assert await scene.drained()
    assert "drained in" in scene.said[-1]
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await accepts(scene.http):  # Envoy closes its listeners after it has answered
            await asyncio.sleep(0.01)


async def test_drain_http_client_leaves_after_next_answer(scene: Scene) -> None:
    reader, writer = await asyncio.open_connection(LOCAL, scene.http)
    assert "connection: close" not in await ask(reader, writer)
    draining = asyncio.create_task(scene.drained())
    while "connection: close" not in await ask(reader, writer):
        pass
    assert await reader.read() == b""
    writer.close()
    assert await draining


async def test_drain_tcp_connection_continues_until_its_end(scene: Scene) -> None:
    reader, writer = await asyncio.open_connection(LOCAL, scene.tcp)
    assert await reader.readline() == b"hi\n"
    draining = asyncio.create_task(scene.drained(quiet=0))
    for number in range(20):
        writer.write(b"%d\n" % number)
        assert await reader.readline() == b"%d\n" % number
        done, _ = await asyncio.wait([draining], timeout=0.05)
        assert not done
    writer.close()
    assert await draining


async def test_drain_endless_request_is_left_after_limit(scene: Scene) -> None:
    reader, writer = await asyncio.open_connection(LOCAL, scene.tcp)
    assert await reader.readline() == b"hi\n"
    await scene.has(clients=1, in_flight=1)
    assert not await scene.drained(limit=0.5)
    assert "1 client is still connected, 1 with requests in flight" in scene.said[-2]
    writer.close()


async def test_drain_idle_client_is_left_after_quiet(scene: Scene) -> None:
    reader, writer = await asyncio.open_connection(LOCAL, scene.http)
    await ask(reader, writer)
    assert await scene.drained(quiet=0.5)
    writer.close()


async def test_drain_without_envoy_is_reported() -> None:
    with pytest.raises(EnvoyUnreachable, match="refused"):
        drain(f"{LOCAL}:{free_port()}", 1, 0, 0, print)
