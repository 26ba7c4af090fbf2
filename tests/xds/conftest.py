"""Fixtures with real Envoy; what they are made of is in `parts.py`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from tests.ports import free_port
from tests.xds.parts import Envoy, Mode, Plane, envoy, plane
from xds import ir


@dataclass
class Stage:
    """A server, an Envoy that has joined it, and ports for the shared listeners."""

    plane: Plane
    envoy: Envoy
    mode: Mode
    http: int = field(default_factory=free_port)
    tls: int = field(default_factory=free_port)

    def configure(self, *services: ir.Upstream) -> None:
        listen = ir.Listen(http=ir.SocketAddress("127.0.0.1", self.http), tls=ir.SocketAddress("127.0.0.1", self.tls))
        self.plane.server.configure(listen, services)

    async def serve(self, *services: tuple[ir.Upstream, tuple[ir.SocketAddress, ...]]) -> None:
        """Configure these services with these endpoints, and wait until Envoy has it all."""
        self.configure(*(service for service, _ in services))
        for service, endpoints in services:
            self.plane.server.route(service.name, endpoints)
        self.plane.server.open()
        await self.plane.everywhere(*(service.name for service, _ in services))
        await self.envoy.listens(self.http)

    async def move(self, service: str, *endpoints: ir.SocketAddress) -> None:
        """Send a service's connections to other endpoints, and wait until Envoy does."""
        self.plane.server.route(service, endpoints)
        await self.plane.everywhere(service)


@pytest_asyncio.fixture(params=["delta", "sotw"])
async def stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stage]:
    async with plane() as running, envoy(tmp_path, running.port, mode=request.param) as joined:
        yield Stage(running, joined, request.param)
