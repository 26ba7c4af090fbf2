"""A request through zenvoy, asleep and awake, is the one that the program would have received, and so is its answer."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import BinaryIO

import psutil
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import Event, StreamEnded, StreamReset

from tests.e2e.conftest import Start
from tests.e2e.harness import LOCAL, SERVERS, SLOW_TO_SLEEP, Zenvoy, gated, quick, request, until
from tests.ports import free_port

FINE = "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Length: 2\r\n\r\nhi"
HINT = "HTTP/1.1 103 Early Hints\r\nLink: </{}.css>; rel=preload\r\n\r\n"


def answer(text: str) -> str:
    """Return a request for this answer, without its Host."""
    return f"GET /answer/{text.encode('latin-1').hex()} HTTP/1.1\r\n"


MANY = "".join(f"X-H{number}: v\r\n" for number in range(400))
REQUESTS = {
    "case": "GET / HTTP/1.1\r\nHost: case\r\nX-CamelCase: Yes\r\nx-lower: 1\r\nX-UPPER: 2\r\n\r\n",
    "repeated": "GET / HTTP/1.1\r\nHost: repeated\r\nCookie: a=1\r\nX-Two: 1\r\nX-Two: 2\r\nX_Under: 3\r\n\r\n",
    "trailers": "POST /chunked HTTP/1.1\r\nHost: trailers\r\nTE: trailers\r\nTrailer: X-Md5\r\n"
    "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Md5: abc\r\n\r\n",
    "path": "GET /a/%7Efoo/./b%41/../c//d%2Fe%5C\\f;g?h=%7E&i=a/../b HTTP/1.1\r\nHost: path\r\n\r\n",
    "latin": "GET / HTTP/1.1\r\nHost: latin\r\nX-Name: Zoë\r\n\r\n",
    "request-id": "GET / HTTP/1.1\r\nHost: request-id\r\nX-Request-Id: mine\r\n\r\n",
    "edge": "GET / HTTP/1.1\r\nHost: edge\r\nX-Forwarded-Proto: https\r\nX-Forwarded-For: 192.0.2.9\r\n"
    "X-Forwarded-Client-Cert: Hash=ab\r\nForwarded: proto=https\r\nVia: 1.1 edge\r\nX-Real-IP: 192.0.2.9\r\n\r\n",
    "many": f"GET / HTTP/1.1\r\nHost: many\r\n{MANY}\r\n",
    "large": f"GET / HTTP/1.1\r\nHost: large\r\nX-A: {'a' * 61 * 1024}\r\nX-B: {'b' * 61 * 1024}\r\n\r\n",
    "long": f"GET /{'p' * 70 * 1024} HTTP/1.1\r\nHost: long\r\n\r\n",
    "upgrade": "GET / HTTP/1.1\r\nHost: upgrade\r\nConnection: Upgrade\r\nUpgrade: TLS/1.2\r\n\r\n",
    "tcp": "GET / HTTP/1.1\r\nHost: tcp\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
    "exec": "POST / HTTP/1.1\r\nHost: exec\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 2\r\n\r\nab",
    "dot": "GET / HTTP/1.1\r\nHost: dot.\r\n\r\n",
    "method": "PURGE / HTTP/1.1\r\nHost: method\r\nContent-Length: 2\r\n\r\nab",
    "expect": "POST / HTTP/1.1\r\nHost: expect\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab",
    "old": "GET / HTTP/1.0\r\nHost: old\r\n\r\n",
    "options": "OPTIONS / HTTP/1.1\r\nHost: options\r\n\r\n",
    "joined": "GET / HTTP/1.1\r\nHost: joined\r\nAccept: a\r\nAccept: b\r\nX-Folded: a\r\n b\r\n\r\n",
    "absolute": "GET http://absolute:80/x?y HTTP/1.1\r\nHost: other\r\n\r\n",
    "hops": "GET / HTTP/1.1\r\nHost: hops\r\nConnection: X-Hop\r\nX-Hop: 1\r\nTE: trailers, deflate\r\n\r\n",
    "hints": answer(HINT.format("a") + HINT.format("b") + f"HTTP/1.1 200 OK\r\n{FINE}") + "Host: hints\r\n\r\n",
    "status": answer(f"HTTP/1.1 999 Tr\xe8s bien\r\nX-Empty: \r\nSet-Cookie: a\r\nSet-Cookie: b\r\n{FINE}")
    + "Host: status\r\n\r\n",
}
"""Requests by name, which is also the host: each has a service of its own, so that one asks each while it sleeps."""
ADDED = re.compile(rb"X-Forwarded-For: 127\.0\.0\.1\r\n|(?<=[0-9],)127\.0\.0\.1|X-Forwarded-Proto: http\r\n")
KEEPALIVE_TIMER = "02"
CHANGED = {
    "trailers": {b"X-Md5: abc": b"x-md5: abc", b"X-Sum: 42": b"x-sum: 42"},
    "upgrade": {b"Connection: Upgrade\r\nUpgrade: TLS/1.2\r\n": b""},
    "edge": {b"X-Forwarded-For: 192.0.2.9\r\n": b"X-Forwarded-For: 192.0.2.9,\r\n"},
    "tcp": {b"\r\n\r\nGET": b"\r\nConnection: close\r\n\r\nGET"},
    "exec": {b"\r\n\r\nPOST": b"\r\nConnection: close\r\n\r\nPOST"},
    "dot": {b"Host: dot.": b"Host: dot"},
    "options": {b"Host: options\r\n": b"Host: options\r\nContent-Length: 0\r\n"},
    "joined": {b"Accept: a\r\nAccept: b\r\n": b"Accept: a,b\r\n", b"a\r\n b": b"a b"},
    "absolute": {b"http://absolute:80/": b"/", b"Host: other": b"Host: absolute:80"},
    "hops": {b"Connection: X-Hop\r\nX-Hop: 1\r\nTE: trailers, deflate\r\n": b"TE: trailers\r\n"},
    "hints": {HINT.format("b").encode(): b""},
    "old": {
        b"GET / HTTP/1.0": b"GET / HTTP/1.1",
        b"HTTP/1.1 200": b"HTTP/1.0 200",
        b"\r\n\r\nGET": b"\r\nConnection: close\r\n\r\nGET",
    },
}
"""The changes that docs/envoy-defaults.md lists, in addition to the headers of `ADDED`."""


@pytest.fixture(scope="module")
def direct() -> Iterator[int]:
    """The port of the program without zenvoy."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-I", "-S", str(SERVERS / "raw_http.py"), str(port)])

    def listens() -> bool:
        with suppress(OSError), socket.create_connection((LOCAL, port)):
            return True
        return False

    until("the program listens", listens)
    yield port
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def z(shared_zenvoy: Start) -> Zenvoy:
    command = [sys.executable, "-I", "-S", str(SERVERS / "raw_http.py"), "{port}"]
    services = [{"name": name, "command": command} for name in REQUESTS]
    db = {"name": "db", "protocol": "tcp", "command": gated(quick("tcp"), "db")}
    late = {"name": "late", "command": gated(quick("http"), "late")}
    probe = {"paths": ["/probe"], "answer": {"status": 400, "body": "asleep"}}
    ignoring = {"name": "ignoring", "command": quick("http"), "ignore": [probe]}
    by_bytes = {"idle": {"by": "bytes"}, "wake": {"by": "bytes"}}
    own = {"name": "own-port", "protocol": "tcp", "command": command, **by_bytes}
    hosts = {"two": ["*.example.com"], "exact": ["a.b.example.com"], "three": ["*.b.example.com"], "default": []}
    services += [{"name": name, "hosts": names, "command": quick("http")} for name, names in hosts.items()]
    proxy = {"http": {"healthPath": "/zenvoy/health", "defaultService": "default"}}
    return shared_zenvoy(*services, db, own, late, ignoring, defaults=SLOW_TO_SLEEP, proxy=proxy)


@pytest.mark.parametrize("name", REQUESTS)
def test_request_asleep_and_awake_passes_as_it_is(z: Zenvoy, direct: int, name: str) -> None:
    expected = exchange(direct, REQUESTS[name])
    for old, new in CHANGED.get(name, {}).items():
        assert old in expected
        expected = expected.replace(old, new, 1)
    z.asleep(name)
    asleep = exchange(z.http_port, REQUESTS[name])
    z.woken(name)
    awake = exchange(z.http_port, REQUESTS[name])
    assert ADDED.sub(b"", asleep) == expected
    assert ADDED.sub(b"", awake) == expected


def test_http_over_a_tcp_service_keeps_forwarded_headers(z: Zenvoy, direct: int) -> None:
    forwarded = "X-Forwarded-For: 192.0.2.9, 192.0.2.10\r\nX-Forwarded-Proto: https\r\nX-Envoy-Internal: true\r\n"
    sent = f"GET /a/./b HTTP/1.1\r\nHost: any\r\n{forwarded}\r\n"
    expected = exchange(direct, sent)
    z.asleep("own-port")
    asleep = exchange(z.port("own-port"), sent)
    z.woken("own-port")
    awake = exchange(z.port("own-port"), sent)
    assert asleep == awake == expected


def test_http_own_port_has_its_own_trusted_hops(zenvoy: Start) -> None:
    command = [sys.executable, "-I", "-S", str(SERVERS / "raw_http.py"), "{port}"]
    own = {"protocol": "http", "listen": f"{LOCAL}:{free_port()}", "http": {"trustedHops": 1}}
    web = {"name": "web", "command": command, **own}
    z = zenvoy(web, defaults=SLOW_TO_SLEEP, proxy={"http": {"trustedHops": 0}})

    def forwarded(port: int, host: str) -> bytes:
        sent = f"GET / HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-Proto: https\r\nX-Forwarded-For: 192.0.2.9\r\n\r\n"
        answer = exchange(port, sent)
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        [proto] = re.findall(rb"X-Forwarded-Proto: (\S+)", answer)
        return bytes(proto)

    z.asleep("web")
    assert forwarded(z.port("web"), "any.example.com") == b"https"
    z.woken("web")
    assert [forwarded(z.port("web"), host) for host in ("other.example.com", "192.0.2.1", "web")] == [b"https"] * 3
    assert forwarded(z.http_port, "web") == b"http"
    z.sleep("web")
    assert forwarded(z.http_port, "web") == b"http"


def test_request_too_large_names_who_refused_it(z: Zenvoy) -> None:
    answer = exchange(z.http_port, f"GET / HTTP/1.1\r\nHost: case\r\nX-A: {'a' * 300 * 1024}\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b"zenvoy: the headers of the request exceed 256 KiB (maxHeadersKiB)" in answer


REFUSED = {
    "path": ("GET /ü HTTP/1.1\r\n", 400, "the request: http1.codec_error"),
    "fragment": ("GET /a#b HTTP/1.1\r\n", 400, "the request: path_normalization_failed"),
    "control": ("GET / HTTP/1.1\r\nX-A: \x01\r\n", 400, "the request: http1.invalid_characters"),
    "encoding": (
        "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n",
        501,
        "the request: http1.invalid_transfer_encoding",
    ),
    "space": ("GET /a b HTTP/1.1\r\n", 400, "the request: http1.codec_error"),
    "length": ("POST / HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 0\r\n", 400, "the request: http1.codec_error"),
    "hop": ("GET / HTTP/1.1\r\nConnection: X-Forwarded-For\r\n", 400, "http1.connection_header_rejected"),
    "no-path": ("GET http://case?x HTTP/1.1\r\n", 404, "path of a service: absolute_path_rejected"),
    "asterisk": ("OPTIONS * HTTP/1.1\r\n", 404, "path of a service: absolute_path_rejected"),
    "connect": ("CONNECT case:80 HTTP/1.1\r\n", 404, "path of a service: route_not_found"),
    "no-content": (
        answer("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        502,
        "the answer of the service is invalid",
    ),
    "no-http": (answer("ICY 200 OK\r\n\r\n"), 502, "the answer of the service is invalid"),
    "no-answer": (answer(""), 503, "the service did not answer"),
}
"""Requests without their Host that are not answered by the program: the status and a part of the text."""


@pytest.mark.parametrize("name", REFUSED)
def test_answer_of_envoy_names_who_refused_and_why(z: Zenvoy, name: str) -> None:
    sent, status, part = REFUSED[name]
    got = exchange(z.http_port, f"{sent}Host: case\r\n\r\n")
    assert got.startswith(f"HTTP/1.1 {status} ".encode())
    assert re.search(rf"\r\n\r\nzenvoy: .*{part}.*\n$".encode(), got)


def test_answer_to_an_ignored_request_keeps_its_text(z: Zenvoy) -> None:
    z.asleep("ignoring")
    got = exchange(z.http_port, "GET /probe HTTP/1.1\r\nHost: ignoring\r\n\r\n")
    assert (got[:13], got.rpartition(b"\r\n")[2]) == (b"HTTP/1.1 400 ", b"asleep")


def test_invalid_http2_request_leaves_the_other_requests(z: Zenvoy) -> None:
    client = H2Connection(H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False))
    client.initiate_connection()
    valid = [(":method", "GET"), (":scheme", "http"), (":path", "/x"), (":authority", "late")]
    with socket.create_connection((LOCAL, z.http_port), 60) as sock:
        client.send_headers(1, valid, end_stream=True)
        client.send_headers(3, [*valid, ("X-Upper", "1")], end_stream=True)
        client.send_headers(5, [*valid, ("connection", "x")], end_stream=True)
        sock.sendall(client.data_to_send())
        events: list[Event] = []
        while not any(isinstance(event, StreamEnded) for event in events):
            data = sock.recv(65_536)
            assert data, "the connection was closed"
            events += client.receive_data(data)
            if sum(isinstance(event, StreamReset) for event in events) == 2:
                z.open_gate("late")
            sock.sendall(client.data_to_send())
    assert {event.stream_id for event in events if isinstance(event, StreamReset)} == {3, 5}
    assert {event.stream_id for event in events if isinstance(event, StreamEnded)} == {1}


@pytest.mark.parametrize(
    ("host", "service"),
    [
        ("a.b.example.com", b"exact"),
        ("c.b.example.com", b"three"),
        ("c.d.b.example.com.", b"three"),
        ("b.example.com:80", b"two"),
        ("example.com", b"default"),
        ("192.0.2.1", b"default"),
    ],
)
def test_host_leads_to_the_most_exact_service(z: Zenvoy, host: str, service: bytes) -> None:
    answer = exchange(z.http_port, f"GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n")
    assert answer.endswith(service + b" /x\n")


def test_request_without_a_host_reaches_the_default_service(z: Zenvoy) -> None:
    assert exchange(z.http_port, "GET /x HTTP/1.0\r\n\r\n").endswith(b"default /x\n")


def test_health_path_any_host_is_answered_without_a_wake(z: Zenvoy) -> None:
    wakes = z.wakes("default")
    for host, path in product(("192.0.2.1", "case"), ("/zenvoy/health", "/zenvoy/health?from=lb")):
        answer = request(z.http_port, host, path)
        assert (answer.status, answer.body) == (200, b"")
    assert request(z.http_port, "case", "/zenvoy/healthy").body.startswith(b"GET /zenvoy/healthy ")
    assert z.wakes("default") == wakes


def test_vanished_peer_is_detected_on_all_four_sockets(z: Zenvoy) -> None:
    with socket.create_connection((LOCAL, z.port("db"))) as client:
        z.wait_status("it is held", "db", lambda view: view["held"] == 1)
        z.open_gate("db")
        client.sendall(b"hello\n")
        assert client.recv(100) == b"db hello\n"
        pids = z.pids()

        def are_probed() -> bool:
            both = [timers(pids["envoy"]), timers(pids["holder"])]
            return all(len(found) >= 2 and set(found) == {KEEPALIVE_TIMER} for found in both)

        until("Envoy and the holder have keepalive timers on both sides", are_probed)


def timers(pid: int) -> list[str]:
    """Return the timers of a process's TCP connections, as proc(5) numbers them."""
    connections = psutil.Process(pid).net_connections("tcp4")
    ours = {(one.laddr.port, one.raddr.port) for one in connections if one.status == psutil.CONN_ESTABLISHED}
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    pairs = [tuple(int(address.rpartition(":")[2], 16) for address in row[1:3]) for row in rows]
    return [row[5][:2] for row, pair in zip(rows, pairs, strict=True) if pair in ours]


def exchange(port: int, request: str) -> bytes:
    """Send a request, and return its answer: the head without the length of the body, the body without chunks."""
    with socket.create_connection((LOCAL, port), 60) as client, client.makefile("rb") as file:
        client.sendall(request.encode())
        head = last = _lines(file)
        while last.startswith(b"HTTP/1.1 1"):
            last = _lines(file)
            head += last
        if b"\nTransfer-Encoding: chunked" in head:
            return head + b"".join(iter(lambda: _chunk(file), b"")) + _lines(file)
        before, length, after = re.split(rb"(?i:Content-Length): (\d+)\r\n", head, maxsplit=1)
        return before + after + file.read(int(length))


def _lines(file: BinaryIO) -> bytes:
    """Return the lines up to an empty one, which is included."""
    return b"".join(iter(file.readline, b"\r\n")) + b"\r\n"


def _chunk(file: BinaryIO) -> bytes:
    """Return the next chunk of a body; empty at its end."""
    size = int(file.readline(), 16)
    return file.read(size + 2)[:-2] if size else b""
