"""The client of a held connection, named by its request or by a PROXY header, which no service ever sees."""

from __future__ import annotations

import socket

import pytest

from tests.tproxy.harness import FakeReconciler, HolderProcess, World, eventually, go, is_reset, read_exactly
from tests.tproxy.protocols.messages import LOCAL, h2_request, header
from tproxy.wire import Go


@pytest.mark.parametrize(
    ("client", "peer"),
    [("192.0.2.7", "192.0.2.7:4567"), ("2001:db8::7", "[2001:db8::7]:4567")],
    ids=["IPv4", "IPv6"],
)
@pytest.mark.parametrize("more", [b"", b"\x04\x00\x50" + bytes(80)], ids=["bare", "padded"])
def test_header_names_the_client_and_is_consumed(world: World, client: str, peer: str, more: bytes) -> None:
    world.assign(has_header=True)
    # What a client sends of the same kind is the service's.
    sent = header(client, more=more) + header("10.0.0.1") + bytes(range(256)) * 400
    envoy = world.client()
    envoy.sendall(sent)
    eventually(lambda: world.sees(held=1).peer == peer, "the header to be looked at")
    upstream = world.upstream()
    world.assign(go(upstream), has_header=True)
    server = world.accept(upstream)
    expected = sent[len(header(client, more=more)) :]
    assert read_exactly(server, len(expected)) == expected
    server.sendall(b"done")
    assert read_exactly(envoy, 4) == b"done"
    assert world.sees(released=1, held=0).peer == peer


def test_header_in_pieces_lets_the_server_speak_first(world: World) -> None:
    upstream = world.upstream()
    world.assign(go(upstream), has_header=True)
    envoy = world.client()
    whole = header("2001:db8::7", more=b"\x04\x00\x50" + bytes(80))
    for at in range(0, len(whole), 9):
        world.sees(held=1, released=0)
        envoy.sendall(whole[at : at + 9])
    world.accept(upstream).sendall(b"220 ready\r\n")
    assert envoy.recv(100) == b"220 ready\r\n"


def test_header_local_names_the_peer(world: World) -> None:
    upstream = world.upstream()
    world.assign(go(upstream), has_header=True)
    envoy = world.client()
    envoy.sendall(LOCAL + b"ping")
    assert read_exactly(world.accept(upstream), 4) == b"ping"
    assert world.sees(released=1).peer == "{}:{}".format(*envoy.getsockname())


def test_connection_without_header_does_not_block_others(world: World) -> None:
    upstream = world.upstream()
    world.assign(has_header=True)
    silent = world.client()
    world.sees(held=1)
    envoy = world.client()
    envoy.sendall(header() + b"hello")
    world.sees(held=2)
    world.assign(go(upstream), has_header=True)
    assert read_exactly(world.accept(upstream), 5) == b"hello"
    world.assign(go(upstream), hold_timeout=0.1, has_header=True)
    assert is_reset(silent)
    assert world.sees(held=0, released=1, refused=1).refused_by == {"timeout": 1}
    upstream.setblocking(False)
    with pytest.raises(BlockingIOError):
        upstream.accept()  # nor was the service called for nothing


def test_client_that_ends_before_its_header_is_gone(world: World) -> None:
    world.assign(has_header=True)
    world.client().shutdown(socket.SHUT_WR)
    world.sees(held=0, gone=1)
    half = world.client()
    half.sendall(header()[:20])
    half.shutdown(socket.SHUT_WR)
    world.sees(held=0, gone=2)
    whole = world.client()
    whole.sendall(header())
    whole.shutdown(socket.SHUT_WR)
    upstream = world.upstream()
    world.assign(go(upstream), has_header=True)
    world.accept(upstream).sendall(b"an answer")
    assert whole.recv(100) == b"an answer", "it ended its own side only"


def test_header_before_the_assignment_is_consumed(world: World) -> None:
    upstream, port = world.upstream(), world.reconciler.port
    world.reconciler.stop()
    world.use(world.enter_context(HolderProcess(port)))
    world.client().sendall(header() + b"hello")
    known = world.assignment(go(upstream), has_header=True)
    world.reconciler = world.enter_context(FakeReconciler(port, [known]))
    assert read_exactly(world.accept(upstream), 5) == b"hello"
    assert world.sees(released=1, held=0).peer == "192.0.2.7:4567"


def test_header_after_the_assignment_is_consumed(world: World) -> None:
    upstream, port = world.upstream(), world.reconciler.port
    world.reconciler.stop()
    world.use(world.enter_context(HolderProcess(port)))
    silent = world.client()
    known = world.assignment(go(upstream), has_header=True)
    world.reconciler = world.enter_context(FakeReconciler(port, [known]))
    world.sees(released=0, held=1)
    silent.sendall(header("192.0.2.8") + b"hello")
    assert read_exactly(world.accept(upstream), 5) == b"hello"
    world.sees(released=1, held=0)


def test_header_after_protocol_change_is_still_consumed(world: World) -> None:
    upstream = world.upstream()
    world.assign(has_header=True)
    envoy, late = world.client(), world.client()
    envoy.sendall(header() + b"GET /1")
    late.sendall(header()[:20])
    eventually(lambda: world.sees(held=2).peer == "192.0.2.7:4567", "the header to be looked at")
    world.assign(protocol="http")
    late.sendall(header()[20:] + b"GET /2")
    world.assign(Go(go(upstream).endpoints), protocol="http")
    assert {read_exactly(world.accept(upstream), 6) for _ in range(2)} == {b"GET /1", b"GET /2"}


@pytest.mark.parametrize("protocol", ["http", "h2c"])
def test_header_before_a_request_is_consumed(world: World, protocol: str) -> None:
    """Envoy and the holder learn of a protocol change at different times."""
    upstream = world.upstream()
    request = h2_request("192.0.2.8") if protocol == "h2c" else b"GET / HTTP/1.1\r\nx-forwarded-for: 192.0.2.8\r\n\r\n"
    world.assign(protocol=protocol)
    held = world.client()
    held.sendall(header() + request)
    eventually(lambda: world.sees(held=1).peer == "192.0.2.8", "the request to be looked at")
    world.assign(go(upstream), protocol=protocol)
    assert read_exactly(world.accept(upstream), len(request)) == request
    comes = world.client()
    world.sees(held=1, released=1)
    comes.sendall(LOCAL + request)
    assert read_exactly(world.accept(upstream), len(request)) == request
    assert world.sees(held=0, released=2).peer == "192.0.2.8"


def test_header_after_two_protocol_changes_is_consumed_once(world: World) -> None:
    upstream = world.upstream()
    world.assign(has_header=True)
    envoy = world.client()
    envoy.sendall(header() + header("10.0.0.1") + b"hello")
    eventually(lambda: world.sees(held=1).peer == "192.0.2.7:4567", "the header to be looked at")
    world.assign(protocol="http")
    world.assign(has_header=True)
    world.assign(go(upstream), has_header=True)
    expected = header("10.0.0.1") + b"hello"
    assert read_exactly(world.accept(upstream), len(expected)) == expected, "the client's own is its service's"


# A request.


@pytest.mark.parametrize(
    ("protocol", "request_bytes"),
    [
        ("http", b"GET / HTTP/1.1\r\nhost: web\r\nx-forwarded-for: 10.9.8.7,192.0.2.7\r\n\r\n"),
        ("h2c", h2_request("10.9.8.7,192.0.2.7")),
    ],
    ids=["http", "h2c"],
)
def test_request_names_the_client_and_is_delivered(world: World, protocol: str, request_bytes: bytes) -> None:
    world.assign(protocol=protocol)
    client = world.client()
    assert world.sees(held=1).peer == "{}:{}".format(*client.getsockname())
    client.sendall(request_bytes)
    eventually(lambda: world.sees(held=1).peer == "192.0.2.7", "the request to be looked at")
    upstream = world.upstream()
    world.assign(go(upstream), protocol=protocol)
    assert read_exactly(world.accept(upstream), len(request_bytes)) == request_bytes, "nothing of it was taken away"
