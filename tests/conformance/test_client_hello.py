"""ClientHellos of many shapes, in segments and records of many sizes, to a service whose TLS is passed through."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator

import pytest

from tests.conformance.conftest import Outcome, Record
from tests.conformance.programs import listening
from tests.e2e.conftest import Start
from tests.e2e.harness import LOCAL, SERVERS, SLOW_TO_SLEEP, Zenvoy, server

CERTIFICATE = str(SERVERS / "blue.pem")
NAME = "hello.test"
RECORD_HEADER = 5
SECONDS = 60.0


def version(number: ssl.TLSVersion) -> Callable[[ssl.SSLContext], None]:
    def set_both(context: ssl.SSLContext) -> None:
        context.minimum_version = context.maximum_version = number

    return set_both


def one_cipher(context: ssl.SSLContext) -> None:
    version(ssl.TLSVersion.TLSv1_2)(context)
    context.set_ciphers("ECDHE+AESGCM:!AES128")


def protocols(*names: str) -> Callable[[ssl.SSLContext], None]:
    return lambda context: context.set_alpn_protocols(names)


SHAPES: dict[str, Callable[[ssl.SSLContext], None]] = {
    "default": lambda context: None,
    "1.2": version(ssl.TLSVersion.TLSv1_2),
    "1.3": version(ssl.TLSVersion.TLSv1_3),
    "one-cipher": one_cipher,
    "all-ciphers": lambda context: context.set_ciphers("ALL:@SECLEVEL=0"),
    "h2": protocols("h2", "http/1.1"),
    "unknown-protocol": protocols("zenvoy/1"),
    "4-KiB": protocols(*(f"{number:0200}" for number in range(20))),
    "14-KiB": protocols(*(f"{number:0200}" for number in range(70))),
}


def whole(data: bytes) -> Iterator[bytes]:
    yield data


def by_bytes(data: bytes) -> Iterator[bytes]:
    """Divide the first bytes into segments of one byte, up to the server name of most clients."""
    for position in range(300):
        yield data[position : position + 1]
    yield data[300:]


def by_records(data: bytes) -> Iterator[bytes]:
    """Divide the handshake message into records of 64 bytes, which TLS allows."""
    kind, body = data[:3], data[RECORD_HEADER:]
    for position in range(0, len(body), 64):
        part = body[position : position + 64]
        yield kind + len(part).to_bytes(2, "big") + part


WAYS_TO_SEND = {"whole": whole, "bytes": by_bytes, "records": by_records}


@pytest.fixture(scope="module")
def direct() -> Iterator[int]:
    """The port of the program without zenvoy."""
    with listening(server("tcp", "echo", CERTIFICATE)) as port:
        yield port


@pytest.fixture(scope="module")
def z(shared_zenvoy: Start) -> Zenvoy:
    command = server("tcp", "echo", CERTIFICATE)
    return shared_zenvoy(
        {"name": "hello", "protocol": "tls", "hosts": [NAME], "command": command}, defaults=SLOW_TO_SLEEP
    )


@pytest.mark.parametrize("send", WAYS_TO_SEND)
@pytest.mark.parametrize("shape", SHAPES)
def test_client_hello_through_zenvoy_is_answered(z: Zenvoy, direct: int, record: Record, shape: str, send: str) -> None:
    z.sleep("hello")
    asleep = conversation(z.tls_port, shape, send)
    z.wake("hello")
    expected, awake = conversation(direct, shape, send), conversation(z.tls_port, shape, send)
    differs = {way: None if seen == expected else seen for way, seen in (("asleep", asleep), ("awake", awake))}
    record("TLS ClientHello", Outcome(None, **differs))
    assert (asleep, awake) == (expected, expected)
    assert expected.endswith("hello")


def conversation(port: int, shape: str, send: str) -> str:
    """Return what the handshake agreed on and the server's echo, or the error."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    SHAPES[shape](context)
    received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(received, sent, server_hostname=NAME)
    try:
        with socket.create_connection((LOCAL, port), SECONDS) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pump(client, tls.do_handshake, received, sent, WAYS_TO_SEND[send])
            first = pump(client, lambda: tls.read(100), received, sent)
            assert first.startswith(b"process ")
            tls.write(b"hello")
            echo = pump(client, lambda: tls.read(100), received, sent)
    except OSError as error:
        return repr(error)
    return f"{tls.version()} {tls.cipher()} {tls.selected_alpn_protocol()} {echo.decode()}"


def pump(
    client: socket.socket,
    act: Callable[[], bytes | None],
    received: ssl.MemoryBIO,
    sent: ssl.MemoryBIO,
    first: Callable[[bytes], Iterator[bytes]] = whole,
) -> bytes:
    """Act until it no longer waits for data; `first` divides what is sent first."""
    while True:
        try:
            result, waits = act(), False
        except ssl.SSLWantReadError:
            result, waits = None, True
        if data := sent.read():
            for part in first(data):
                client.sendall(part)
            first = whole
        if not waits:
            return result or b""
        if not (data := client.recv(65_536)):
            raise ConnectionResetError("the server closed the connection")
        received.write(data)
