"""Cost of 15,000 connections that are held at once in one holder, then released and answered.

The holder is the real process, and the reconciler's end of its stream is the real adapter. Services and clients are
part of the benchmark. Kernel memory of sockets is not counted on either side, because every holder of a socket needs
it.

References: the same number of idle connections at an `asyncio.start_server`, and for the release, the same requests
sent by the same client to the same server without a holder.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import resource
import select
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc

from bench.processes import cpu_seconds, descriptors, free_port, resident_bytes, running, say
from bench.table import Row
from reconciler.core.spec import Protocol, Spec
from reconciler.ports.holders import HoldOrder, HoldStatus
from reconciler.server.holders import HolderStreams

CONNECTIONS = 15_000
SERVICES = 60
EACH = CONNECTIONS // SERVICES
"""Below the default of maxHeld."""
BYTES_EACH = 1024
HOLD_SECONDS = 120.0
PATIENCE_SECONDS = 60.0
BATCH = 64
ASLEEP = 20_000
"""Additional services without connections. Their data fills the memory that is free after the start; otherwise the
connections would seem to cost nothing."""


def measure() -> list[Row]:
    """Return all rows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < CONNECTIONS + 500:
        raise RuntimeError(f"{CONNECTIONS} connections need more descriptors than the hard limit of {hard}: ulimit -Hn")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, hard), hard))
    with upstream() as port:
        say(f"held: {CONNECTIONS} connections in one holder")
        held = asyncio.run(_Holding(port).run())
        say("held: as many requests without a holder")
        direct = without_holder(port)
    say("held: as many connections at asyncio.start_server")
    beside = asyncio_bytes_each()
    figures = (("memory for a held connection", held.bytes_each, "bytes", "asyncio.start_server", beside, BYTES_EACH),)
    return [
        *(Row(what, value, unit, reference, other, most) for what, value, unit, reference, other, most in figures),
        Row("released and not answered byte for byte", CONNECTIONS - held.answered, "", f"of {CONNECTIONS:,}", most=0),
        Row("from release to the last answer", held.release_seconds, "s", "dialled directly", direct),
        Row("of that, the holder's CPU", held.release_cpu_seconds, "s"),
        Row("the holder's descriptors while all wait", held.descriptors, "", "connections", CONNECTIONS),
    ]


def payload(number: int) -> bytes:
    """Return the request of client `number`."""
    return hashlib.sha256(b"%d" % number).digest()


def answer(said: bytes) -> bytes:
    """Return the service's answer to a request."""
    return hashlib.sha512(said).digest()


class Clients:
    """Client connections, each with its own request."""

    def __init__(self) -> None:
        self._sockets: dict[int, tuple[socket.socket, int]] = {}
        self._answers: dict[int, bytearray] = {}
        self._epoll = select.epoll()
        self.answered = 0

    def open(self, target: tuple[str, int]) -> None:
        """Open another connection and send its request."""
        client = socket.create_connection(target, timeout=PATIENCE_SECONDS)
        number = len(self._sockets)
        client.sendall(payload(number))
        client.setblocking(False)
        self._sockets[client.fileno()] = (client, number)
        self._answers[client.fileno()] = bytearray()
        self._epoll.register(client, select.EPOLLIN)

    @property
    def waiting(self) -> int:
        return len(self._answers)

    def read(self, seconds: float) -> None:
        """Read available answers, waiting for at most `seconds`."""
        for fd, _ in self._epoll.poll(seconds, 1024):
            client, number = self._sockets[fd]
            with contextlib.suppress(OSError):
                if data := client.recv(4096):
                    self._answers[fd] += data
                    continue
            self.answered += bytes(self._answers.pop(fd)) == answer(payload(number))
            client.close()

    def close(self) -> None:
        """Close all connections."""
        for client, _ in self._sockets.values():
            client.close()
        self._epoll.close()


class _Holding:
    """A run with the holder, the reconciler's end of its stream, and clients; `run` sets the results as attributes."""

    def __init__(self, upstream_port: int) -> None:
        self._upstream = upstream_port
        self._held: dict[str, HoldStatus] = {}
        self._streams = HolderStreams(self._saw, time.time)
        self._clients = Clients()
        self.bytes_each = self.release_seconds = self.release_cpu_seconds = 0.0
        self.answered = self.descriptors = 0

    async def run(self) -> _Holding:
        """Hold, measure, release, and measure again."""
        with tempfile.TemporaryDirectory() as directory:
            async with self._serving(f"unix:{directory}/grpc.sock") as target:
                port = free_port()
                command = [sys.executable, "-m", "tproxy", "run", "--reconciler", target, "--listen", f"0.0.0.0:{port}"]
                with running(command, stderr=(Path(directory) / "log").open("wb")) as holder:
                    await self._measure(holder.pid, port)
        return self

    async def _measure(self, pid: int, port: int) -> None:
        self._order(port, released=False)
        for number in range(ASLEEP):
            address = f"127.{65 + number // 60_000}.{number // 250 % 250}.{number % 250 + 1}:{port}"
            self._streams.order(f"asleep-{number}", HoldOrder(Spec(name=f"asleep-{number}"), address, (), None))
        await self._until(lambda: len(self._held) == SERVICES + ASLEEP and all(h.acked_at for h in self._held.values()))
        before = resident_bytes(pid)
        for number in range(CONNECTIONS):
            self._clients.open((_hold_address(number % SERVICES), port))
            if number % BATCH == 0:
                await asyncio.sleep(0)
        await self._until(lambda: sum(held.held or 0 for held in self._held.values()) == CONNECTIONS)
        self.descriptors = descriptors(pid)
        self.bytes_each = (resident_bytes(pid) - before) / CONNECTIONS
        begin, cpu = time.monotonic(), cpu_seconds(pid)
        self._order(port, released=True)
        while self._clients.waiting and time.monotonic() < begin + PATIENCE_SECONDS:
            self._clients.read(0)
            await asyncio.sleep(0.001)
        self.release_seconds, self.release_cpu_seconds = time.monotonic() - begin, cpu_seconds(pid) - cpu
        self.answered = self._clients.answered
        self._clients.close()

    def _order(self, port: int, released: bool) -> None:
        for number in range(SERVICES):
            name = f"service-{number}"
            spec = Spec(name=name, protocol=Protocol.TCP, hold_timeout=HOLD_SECONDS)
            to = (f"127.0.{number}.1:{self._upstream}",) if released else ()
            self._streams.order(name, HoldOrder(spec, f"{_hold_address(number)}:{port}", to, None))

    def _saw(self, held: HoldStatus) -> None:
        self._held[held.service] = held

    async def _until(self, condition: object) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        assert callable(condition)
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"only {sum(h.held or 0 for h in self._held.values())} connections are held")
            await asyncio.sleep(0.01)

    @contextlib.asynccontextmanager
    async def _serving(self, target: str) -> AsyncIterator[str]:
        server = grpc.aio.server(options=[("grpc.http2.min_ping_interval_without_data_ms", 1000)])
        server.add_generic_rpc_handlers((self._streams.handler(),))
        server.add_insecure_port(target)
        await server.start()
        try:
            yield target
        finally:
            await server.stop(0.2)


def _hold_address(number: int) -> str:
    return f"127.64.{number}.{number + 1}"


def without_holder(port: int) -> float:
    """Return the seconds until the same requests are answered without a holder."""
    clients = Clients()
    begin = time.monotonic()
    for number in range(CONNECTIONS):
        clients.open((f"127.0.{number % SERVICES}.1", port))
        if number % BATCH == 0:
            clients.read(0)
    while clients.waiting:
        clients.read(1)
    seconds = time.monotonic() - begin
    clients.close()
    return seconds


def asyncio_bytes_each() -> float:
    """Return the bytes per connection of an asyncio server that waits for the first byte."""
    port = free_port()
    with running([sys.executable, "-m", "bench.held", "wait", str(port)]) as server:
        _wait_for(port)
        before = resident_bytes(server.pid)
        clients = [
            socket.create_connection((_hold_address(number % SERVICES), port), timeout=PATIENCE_SECONDS)
            for number in range(CONNECTIONS)
        ]
        while descriptors(server.pid) < CONNECTIONS:
            time.sleep(0.05)
        time.sleep(0.5)
        each = (resident_bytes(server.pid) - before) / CONNECTIONS
        for client in clients:
            client.close()
    return each


@contextlib.contextmanager
def upstream() -> Iterator[int]:
    """Run one process that serves all services; yield its port."""
    port = free_port()
    with running([sys.executable, "-m", "bench.held", "answer", str(port)]):
        _wait_for(port)
        yield port


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.02)


def serve_answers(port: int) -> None:
    """Answer the first request of each connection, and close it."""
    listener = socket.create_server(("0.0.0.0", port), backlog=4096)
    listener.setblocking(False)
    epoll = select.epoll()
    epoll.register(listener, select.EPOLLIN)
    sockets: dict[int, socket.socket] = {}
    while True:
        for fd, _ in epoll.poll():
            if fd == listener.fileno():
                with contextlib.suppress(BlockingIOError):
                    while True:
                        client, _ = listener.accept()
                        sockets[client.fileno()] = client
                        epoll.register(client, select.EPOLLIN)
            else:
                with contextlib.suppress(OSError), sockets.pop(fd) as client:
                    if said := client.recv(4096):
                        client.sendall(answer(said))


async def serve_waiting(port: int) -> None:
    """Accept connections and wait for the first byte of each."""

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read(1)
        writer.close()

    server = await asyncio.start_server(accepted, "0.0.0.0", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    what, where = sys.argv[1], int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    if what == "answer":
        serve_answers(where)
    else:
        asyncio.run(serve_waiting(where))
