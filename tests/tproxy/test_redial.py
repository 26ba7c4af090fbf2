"""Endpoints that accept and end connections until they are really up, as a sidecar or a mesh does."""

from __future__ import annotations

import socket
import struct

import pytest

from tests.tproxy.harness import World, eventually, go, is_reset, read_exactly, reset
from tproxy.wire import Hold

_HEADER = b"\r\n\r\n\0\r\nQUIT\n" + struct.pack("!BBH", 0x21, 0x11, 12) + bytes((192, 0, 2, 7, 10, 0, 0, 1))
PROXY_HEADER = _HEADER + struct.pack("!HH", 4444, 80)


@pytest.mark.parametrize("has_header", [False, True])
def test_tcp_connection_lost_without_an_answer_is_dialed_again(world: World, has_header: bool) -> None:
    upstream = world.upstream()
    world.assign(has_header=has_header)
    client = world.client()
    client.sendall(PROXY_HEADER * has_header + b"question")
    world.sees(held=1)
    world.assign(go(upstream), has_header=has_header)
    for _ in range(5):
        reset(world.accept(upstream))
    server = world.accept(upstream)
    assert read_exactly(server, 8) == b"question"
    server.sendall(b"answer")
    assert read_exactly(client, 6) == b"answer"
    count = world.sees(held=0, relayed=1, released=1, gone=0, refused=0)
    assert count.peer == ("192.0.2.7:4444" if has_header else "{}:{}".format(*client.getsockname()))
    eventually(lambda: world.holder.log.count("without an answer") == 1)


def test_held_connections_survive_together_in_order(world: World) -> None:
    upstream = world.upstream()
    world.assign()
    clients = []
    for number in range(10):
        clients.append(world.client())
        clients[-1].sendall(b"%d" % number)
        world.sees(held=number + 1)
    world.assign(go(upstream))
    for _ in range(15):
        reset(world.accept(upstream))
    for _ in clients:
        server = world.accept(upstream)
        server.sendall(server.recv(1))
    assert [client.recv(1) for client in clients] == [b"%d" % number for number in range(len(clients))]
    world.sees(held=0, relayed=10, released=10)


@pytest.mark.parametrize("request_line", [b"GET / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\nContent-Length: 0\r\n"])
def test_http_request_lost_without_an_answer_is_sent_again(world: World, request_line: bytes) -> None:
    request = request_line + b"Host: web\r\n\r\n"
    upstream = world.upstream()
    world.assign(protocol="http")
    client = world.client()
    client.sendall(request)
    world.sees(held=1)
    world.assign(go(upstream), protocol="http")
    reset(world.accept(upstream))
    server = world.accept(upstream)
    assert read_exactly(server, len(request)) == request
    server.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
    assert client.recv(100).startswith(b"HTTP/1.1 204")


def test_lost_connection_is_held_while_the_service_wakes_again(world: World) -> None:
    upstream = world.upstream()
    world.assign(go(upstream))
    client = world.client()
    server = world.accept(upstream)
    world.sees(relayed=1, held=0)
    world.assign(Hold())
    server.close()
    world.sees(relayed=0, held=1)
    world.assign(go(upstream))
    world.accept(upstream).sendall(b"ready")
    assert client.recv(100) == b"ready"


def test_lost_connection_is_refused_after_hold_timeout(world: World) -> None:
    upstream = world.upstream()
    world.assign(go(upstream), protocol="http")
    client = world.client()
    client.sendall(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
    reset(world.accept(upstream))
    world.assign(go(upstream), hold_timeout=0.5, protocol="http")
    upstream.settimeout(0.05)
    answer = b""
    client.settimeout(0.001)
    while not answer:
        try:
            reset(world.accept(upstream))
        except TimeoutError:
            pass
        try:
            answer = client.recv(4096)
        except TimeoutError:
            pass
        except ConnectionResetError:
            break
    assert answer == b"" or (answer.startswith(b"HTTP/1.1 503") and b"without an answer" in answer)
    world.sees(held=0, relayed=0)


def test_lost_connection_of_a_removed_service_is_reset(world: World) -> None:
    upstream = world.upstream()
    world.assign(go(upstream))
    client = world.client()
    server = world.accept(upstream)
    world.sees(relayed=1)
    world.reconciler.is_acked(world.reconciler.say(remove=(world.holder.address,)))
    server.close()
    assert is_reset(client) or client.recv(1) == b""


def test_answered_connection_is_not_dialed_again(world: World) -> None:
    upstream = world.upstream()
    world.assign(go(upstream))
    client = world.client()
    server = world.accept(upstream)
    server.sendall(b"x")
    assert client.recv(1) == b"x"
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    server.close()
    assert is_reset(client)
    world.sees(held=0, relayed=0, released=1)
