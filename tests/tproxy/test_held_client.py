"""Whom a held connection is from: said in the request, or by a header before all else, which no service ever sees."""

from __future__ import annotations

import socket
from ipaddress import ip_address

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from hypothesis import given
from hypothesis import strategies as st

from tests.tproxy.harness import FakeReconciler, HolderProcess, World, eventually, go, is_reset, read_exactly
from tproxy.protocols import http2
from tproxy.protocols.http_head import forwarded_for
from tproxy.protocols.proxy_protocol import NONE, ProxyHeader, read_header
from tproxy.wire import Go

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LOCAL = SIGNATURE + b"\x20\x00\x00\x00"


def header(client: str = "192.0.2.7", port: int = 4567, more: bytes = b"") -> bytes:
    """As Envoy sends it; the other two values are where the client connected to."""
    kind = socket.AF_INET6 if ":" in client else socket.AF_INET
    host = socket.inet_pton(kind, client)
    rest = host + host[::-1] + port.to_bytes(2) + (5432).to_bytes(2) + more
    return SIGNATURE + bytes((0x21, 0x21 if ":" in client else 0x11)) + len(rest).to_bytes(2) + rest


def h2_request(address: str, name: str = "x-forwarded-for") -> bytes:
    connection = H2Connection(H2Configuration(client_side=True))
    connection.initiate_connection()
    headers = [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "web"), (name, address)]
    connection.send_headers(1, headers, end_stream=True)
    return connection.data_to_send()


# A header.


@given(st.ip_addresses().map(str), st.integers(0, 65_535), st.binary(max_size=80), st.binary(max_size=80))
def test_a_header_says_who_and_where_it_ends(client: str, port: int, more: bytes, data: bytes) -> None:
    whole = header(client, port, more)
    found = read_header(whole + data)
    assert found is not None
    assert found.size == len(whole)
    host, _, said = (found.client or "").rpartition(":")
    address = ip_address(host.strip("[]"))
    assert address == getattr(ip_address(client), "ipv4_mapped", None) or address == ip_address(client)
    assert int(said) == port
    assert all(read_header(whole[:length]) is None for length in range(len(whole)))


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (LOCAL + b"data", ProxyHeader(16)),
        (SIGNATURE + b"\x21\x31\x00\x02ab", ProxyHeader(18)),
        (SIGNATURE + b"\x21\x11\x00\x04abcd", ProxyHeader(20)),
        (SIGNATURE + b"\x11\x11\x00\x0c" + bytes(12), NONE),
        (b"\r\n\r\n\0\r\nQUIT!", NONE),
        (b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\n", NONE),
        (b"?", NONE),
    ],
    ids=["local", "unix socket", "too short for addresses", "another version", "no signature", "version 1", "short"],
)
def test_what_says_nothing_is_no_client(seen: bytes, expected: ProxyHeader) -> None:
    assert read_header(seen) == expected


@pytest.mark.parametrize(
    ("client", "told"), [("192.0.2.7", "192.0.2.7:4567"), ("2001:db8::7", "[2001:db8::7]:4567")], ids=["IPv4", "IPv6"]
)
@pytest.mark.parametrize("more", [b"", b"\x04\x00\x50" + bytes(80)], ids=["bare", "padded"])
def test_a_client_is_known_by_the_header_which_goes_no_further(
    world: World, client: str, told: str, more: bytes
) -> None:
    world.assign(has_header=True)
    # What a client sends of the same kind is the service's.
    sent = header(client, more=more) + header("10.0.0.1") + bytes(range(256)) * 400
    envoy = world.client()
    envoy.sendall(sent)
    eventually(lambda: world.sees(held=1).peer == told, "the header to be looked at")
    upstream = world.upstream()
    world.assign(go(upstream), has_header=True)
    server = world.accept(upstream)
    expected = sent[len(header(client, more=more)) :]
    assert read_exactly(server, len(expected)) == expected
    server.sendall(b"done")
    assert read_exactly(envoy, 4) == b"done"
    assert world.sees(released=1, held=0).peer == told


def test_a_server_may_speak_first_after_a_header_that_comes_in_pieces(world: World) -> None:
    upstream = world.upstream()
    world.assign(go(upstream), has_header=True)
    envoy = world.client()
    whole = header("2001:db8::7", more=b"\x04\x00\x50" + bytes(80))
    for at in range(0, len(whole), 9):
        world.sees(held=1, released=0)
        envoy.sendall(whole[at : at + 9])
    world.accept(upstream).sendall(b"220 ready\r\n")
    assert envoy.recv(100) == b"220 ready\r\n"


def test_envoy_speaks_for_itself_where_it_has_no_client(world: World) -> None:
    upstream = world.upstream()
    world.assign(go(upstream), has_header=True)
    envoy = world.client()
    envoy.sendall(LOCAL + b"ping")
    assert read_exactly(world.accept(upstream), 4) == b"ping"
    assert world.sees(released=1).peer == "{}:{}".format(*envoy.getsockname())


def test_who_never_sends_a_header_keeps_nobody_from_being_released(world: World) -> None:
    upstream = world.upstream()
    world.assign(hold_timeout=1.0, has_header=True)
    silent = world.client()
    world.sees(held=1)
    envoy = world.client()
    envoy.sendall(header() + b"hello")
    world.sees(held=2)
    world.assign(go(upstream), hold_timeout=1.0, has_header=True)
    assert read_exactly(world.accept(upstream), 5) == b"hello"
    assert is_reset(silent)
    assert world.sees(held=0, released=1, refused=1).refused_by == {"timeout": 1}
    upstream.setblocking(False)
    with pytest.raises(BlockingIOError):
        upstream.accept()  # nor was the service called for nothing


def test_who_ends_before_its_header_is_gone(world: World) -> None:
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


def test_a_header_that_came_before_the_reconciler_did(world: World) -> None:
    upstream, port = world.upstream(), world.reconciler.port
    world.reconciler.stop()
    world.use(world.enter_context(HolderProcess(port)))
    envoy, silent = world.client(), world.client()
    envoy.sendall(header() + b"hello")
    known = world.assignment(go(upstream), has_header=True)
    world.reconciler = world.enter_context(FakeReconciler(port, [known]))
    assert read_exactly(world.accept(upstream), 5) == b"hello"
    assert world.sees(released=1, held=1).peer == "192.0.2.7:4567"
    silent.sendall(header("192.0.2.8"))
    world.accept(upstream)
    world.sees(released=2, held=0)


def test_a_service_that_is_given_another_protocol_still_sees_no_header(world: World) -> None:
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
def test_a_header_is_no_part_of_a_request(world: World, protocol: str) -> None:
    """Envoy and the holder hear of another protocol of a service at different moments."""
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


def test_only_one_header_is_taken_away_though_the_protocol_changes_twice(world: World) -> None:
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
def test_an_http_client_is_known_by_the_address_that_envoy_passes_on(
    world: World, protocol: str, request_bytes: bytes
) -> None:
    world.assign(protocol=protocol)
    client = world.client()
    assert world.sees(held=1).peer == "{}:{}".format(*client.getsockname())
    client.sendall(request_bytes)
    eventually(lambda: world.sees(held=1).peer == "192.0.2.7", "the request to be looked at")
    upstream = world.upstream()
    world.assign(go(upstream), protocol=protocol)
    assert read_exactly(world.accept(upstream), len(request_bytes)) == request_bytes, "nothing of it was taken away"


H2 = h2_request("192.0.2.7")
AT = H2.index(http2.frame(1, 5, 1)[3:9], len(http2.PREFACE)) - 3
BLOCK = H2[AT + 9 :]


@pytest.mark.parametrize(
    ("request_bytes", "address"),
    [
        (b"GET / HTTP/1.1\r\nX-Forwarded-For: 192.0.2.7\r\nhost: web\r\n\r\n", "192.0.2.7"),
        (b"GET / HTTP/1.1\r\nhost: web\r\nx-forwarded-for: 192.0.2.7", None),
        (b"GET / HTTP/1.1\r\nhost: web\r\n\r\nx-forwarded-for: 192.0.2.7\r\n", None),
        (b"GET / HTTP/1.1\r\nx-forwarded-for: \r\n\r\n", None),
        (b"GET / HTTP/1.1\r\nx-forwarded-for: unknown\xff\r\n\r\n", None),
        (b"", None),
        (H2, "192.0.2.7"),
        (h2_request("2001:db8::7"), "2001:db8::7"),
        (h2_request("192.0.2.7", name="forwarded"), None),
        (H2[:AT] + http2.frame(1, 0x2D, 1, bytes((3,)) + bytes(5) + BLOCK + bytes(3)), "192.0.2.7"),
        (H2[:AT] + http2.frame(1, 1, 1, BLOCK[:5]) + http2.frame(9, 4, 1, BLOCK[5:]), "192.0.2.7"),
        (H2[:AT] + http2.frame(1, 1, 1, BLOCK[:5]), None),
        (H2[:AT] + http2.frame(1, 0x0D, 1), None),
        (H2[:AT] + http2.frame(1, 5, 1, b"\xff" * 20), None),
        (H2[:-1], None),
        (http2.PREFACE, None),
    ],
    ids=[
        *("http", "not all there", "in the body", "empty", "no address", "nothing"),
        *("h2c", "h2c IPv6", "h2c without", "h2c padded, with a priority", "h2c in two frames", "h2c half of it"),
        *("h2c empty", "h2c malformed", "h2c not all there", "h2c no request"),
    ],
)
def test_only_an_address_in_the_head_is_taken_for_one(request_bytes: bytes, address: str | None) -> None:
    assert forwarded_for(request_bytes) == address
