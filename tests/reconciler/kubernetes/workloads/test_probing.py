"""Dials before an endpoint is used: reachable, trusted, and pending endpoints."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from reconciler.kubernetes.workloads import probing
from reconciler.kubernetes.workloads.probing import CheckSlots, accepts, until_reachable
from tests.ports import free_port


async def test_probe_listener_is_reachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert await until_reachable(CheckSlots(), f"127.0.0.1:{server.getsockname()[1]}", "shop") is True


async def test_probe_ipv6_listener_is_reachable() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        assert await accepts(f"[::1]:{server.getsockname()[1]}") is True


async def test_probe_refused_dial_is_repeated() -> None:
    port = free_port()
    dialling = asyncio.create_task(until_reachable(CheckSlots(), f"127.0.0.1:{port}", "shop"))
    await asyncio.sleep(0.1)
    assert not dialling.done()
    with socket.create_server(("127.0.0.1", port)):
        assert await dialling is True


async def test_probe_refused_for_long_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "REFUSED_FOR_SECONDS", 0.2)
    began = time.monotonic()
    assert await until_reachable(CheckSlots(), f"127.0.0.1:{free_port()}", "shop") is False
    assert time.monotonic() - began >= 0.2


async def test_probe_of_another_namespace_waits_for_no_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "MAX_NAMESPACE_CHECKS", 0)
    checks = CheckSlots()
    waiting = asyncio.create_task(until_reachable(checks, f"127.0.0.1:{free_port()}", "noisy"))
    await asyncio.sleep(0)
    monkeypatch.setattr(probing, "MAX_NAMESPACE_CHECKS", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert await until_reachable(checks, f"127.0.0.1:{server.getsockname()[1]}", "shop") is True
    assert not waiting.done()
    waiting.cancel()
    await asyncio.wait([waiting])


async def test_probe_without_answer_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full backlog drops what else comes, as a network policy may."""
    monkeypatch.setattr(probing, "NO_ANSWER_SECONDS", 0.2)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(server.getsockname())
        assert await until_reachable(CheckSlots(), f"127.0.0.1:{server.getsockname()[1]}", "shop") is None
        for filler in fillers:
            filler.close()
