"""Silent connections: with `waits_for_bytes`, only a client that has sent a byte counts as held."""

from __future__ import annotations

import re
import socket
import urllib.request

import pytest

from tests.ports import free_port
from tests.tproxy.harness import World, eventually, go, read_exactly, reset
from tests.tproxy.test_redial import PROXY_HEADER
from tproxy.wire import Assignment, Go, Hold


class Silent:
    """A holder whose one service waits for bytes."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._port = free_port()
        world.start("--metrics", f"127.0.0.1:{self._port}")

    def assign(self, verdict: Hold | Go | None = None, max_held: int = 100, hold_timeout: float = 600.0) -> None:
        at = self.world.holder.address
        one = Assignment(at, "web", "tcp", verdict or Hold(), max_held, hold_timeout, None, True, "", True)
        self.world.reconciler.is_acked(self.world.reconciler.say(one))

    def metric(self, name: str) -> float | None:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics") as answer:
            found = re.search(rf'^zenvoy_holder_{name}{{service="web"}} (\S+)$', answer.read().decode(), re.MULTILINE)
        return float(found[1]) if found else None

    def shows(self, name: str, value: float) -> None:
        eventually(lambda: self.metric(name) == value, f"{name} is {value:g}")

    def client(self, sent: bytes = b"") -> socket.socket:
        client = self.world.client()
        client.sendall(PROXY_HEADER + sent)
        return client

    @property
    def was_held(self) -> bool:
        counts = [count for up in self.world.reconciler.ups for count in up.counts]
        return any(count.held for count in counts)


@pytest.fixture
def silent(world: World) -> Silent:
    silent = Silent(world)
    silent.assign()
    return silent


@pytest.mark.parametrize("sent", [b"", PROXY_HEADER[:5], PROXY_HEADER])
@pytest.mark.parametrize("end", [socket.socket.close, reset])
def test_probe_is_counted_and_is_no_demand(silent: Silent, sent: bytes, end: object) -> None:
    client = silent.world.client()
    client.sendall(sent)
    silent.shows("silent", 1)
    assert callable(end)
    end(client)
    silent.shows("silent_ended_total", 1)
    assert (silent.metric("silent"), silent.metric("held"), silent.metric("gone_total")) == (0, 0, 0)
    assert not silent.was_held


def test_first_byte_is_demand_and_names_its_client(silent: Silent) -> None:
    first, second = silent.client(), silent.client()
    silent.shows("silent", 2)
    second.sendall(b"x")
    assert silent.world.sees(held=1).peer == "192.0.2.7:4444"
    silent.shows("silent", 1)
    upstream = silent.world.upstream()
    silent.assign(go(upstream))
    servers = [silent.world.accept(upstream), silent.world.accept(upstream)]
    assert read_exactly(servers[0], 1) == b"x"
    servers[1].sendall(b"greeting")
    assert first.recv(100) == b"greeting"
    silent.world.sees(held=0, relayed=2, released=2)


def test_byte_and_end_at_once_are_demand(silent: Silent) -> None:
    client = silent.client(b"question")
    client.shutdown(socket.SHUT_WR)
    silent.world.sees(held=1)
    upstream = silent.world.upstream()
    silent.assign(go(upstream))
    server = silent.world.accept(upstream)
    assert read_exactly(server, 8) == b"question"
    server.sendall(b"answer")
    assert read_exactly(client, 6) == b"answer"


def test_awake_service_gets_silent_connections_at_once(silent: Silent) -> None:
    upstream = silent.world.upstream()
    silent.assign(go(upstream))
    client = silent.client()
    silent.world.accept(upstream).sendall(b"greeting")
    assert client.recv(100) == b"greeting"


def test_silent_connection_makes_room_for_demand(silent: Silent) -> None:
    silent.assign(max_held=2)
    oldest, newer = silent.client(), silent.client()
    silent.shows("silent", 2)
    silent.client(b"x")
    silent.world.sees(held=1, refused=0)
    assert _ends(oldest)
    silent.shows("silent", 1)
    newer.sendall(b"x")
    silent.world.sees(held=2)


def test_silent_connection_ends_after_hold_timeout(silent: Silent) -> None:
    silent.assign(hold_timeout=0.2)
    assert _ends(silent.world.client())
    silent.shows("silent_ended_total", 1)
    assert silent.metric("silent") == 0
    assert not silent.was_held


def test_silent_connection_of_a_removed_service_ends(silent: Silent) -> None:
    client = silent.client()
    silent.shows("silent", 1)
    silent.world.reconciler.say(remove=(silent.world.holder.address,))
    assert _ends(client)


def _ends(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True
