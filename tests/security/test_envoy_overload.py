"""Attacks with more clients than Envoy has descriptors for: it refuses them, serves the others, and does not abort."""

from __future__ import annotations

import asyncio
import resource
import selectors
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.xds.parts import envoy, plane, until, until_async, upstream
from xds import ir
from xds.bootstrap.document import most_connections

pytestmark = pytest.mark.envoy

HOLD = """
import asyncio, sys
async def hold(reader, writer):
    await reader.read()
    writer.close()
async def main():
    server = await asyncio.start_server(hold, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""
"""A server that accepts every connection and never answers; its own process, because it needs as many descriptors."""


class Clients:
    """Connections that send nothing."""

    def __init__(self) -> None:
        self._open = selectors.DefaultSelector()

    def connect(self, port: int, count: int) -> None:
        for _ in range(count):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", port))
            self._open.register(sock, selectors.EVENT_READ)

    def left(self) -> int:
        """Close the connections that Envoy closed or reset, and return the number of the others."""
        while ready := self._open.select(0):
            for key, _ in ready:
                assert isinstance(key.fileobj, socket.socket)
                self._open.unregister(key.fileobj)
                key.fileobj.close()
        return len(self._open.get_map())

    def close(self) -> None:
        for key in list(self._open.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            self._open.unregister(key.fileobj)
            key.fileobj.close()


@pytest.fixture
def clients() -> Iterator[Clients]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    made = Clients()
    yield made
    made.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@asynccontextmanager
async def holding() -> AsyncIterator[ir.SocketAddress]:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", HOLD, stdout=asyncio.subprocess.PIPE)
    assert process.stdout
    try:
        yield ir.SocketAddress("127.0.0.1", int(await process.stdout.readline()))
    finally:
        process.kill()
        await process.wait()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(100):
            writer.write(data)
    finally:
        writer.close()


class EchoClient:
    """A client of the other service."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def is_echoed(self, message: bytes) -> bool:
        self._writer.write(message)
        return await self._reader.read(100) == message


@asynccontextmanager
async def connected(address: ir.SocketAddress) -> AsyncIterator[EchoClient]:
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        yield EchoClient(reader, writer)
    finally:
        writer.close()


@pytest.mark.parametrize(("files", "count"), [(1024, 600), (20_000, 12_000)])
async def test_envoy_more_clients_than_descriptors_refused(
    tmp_path: Path, clients: Clients, files: int, count: int
) -> None:
    """Connect as many clients to one sleeper as made Envoy abort. The larger case takes seconds."""
    limited = ("sh", "-c", f'ulimit -n {files} && exec "$@"', "sh")
    sleeper, other = (ir.SocketAddress("127.0.0.1", free_port()) for _ in range(2))
    services = [
        ir.Upstream(name, ir.ServiceProtocol.TCP, listen=at) for name, at in (("sleeper", sleeper), ("other", other))
    ]
    async with (
        holding() as held,
        upstream(echo) as echoing,
        plane() as running,
        envoy(tmp_path, running.port, prefix=limited, open_files=files) as joined,
    ):
        running.server.configure(ir.Listen(), services)
        running.server.route("sleeper", (held,), held=False)
        running.server.route("other", (echoing,))
        running.server.open()
        await joined.listens(sleeper.port)
        await joined.listens(other.port)
        async with connected(other) as earlier:
            # The kernel completes a connection before Envoy accepts it; only an accepted one is within the limit.
            assert await earlier.is_echoed(b"accepted")
            clients.connect(sleeper.port, count)
            await until(lambda: clients.left() <= most_connections(files), "clients beyond the limit are refused", 120)
            assert await earlier.is_echoed(b"still there")
            assert joined.process.returncode is None
            assert "server.uptime" in await joined.get("/stats?filter=server.uptime")
            clients.close()

            async def new_client_is_served() -> bool:
                async with connected(other) as later:
                    return await later.is_echoed(b"new")

            await until_async(new_client_is_served, "new clients are served again")
            assert joined.process.returncode is None
