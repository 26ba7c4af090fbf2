"""Plain TCP and TLS by name are answered in full on a wake, byte for byte."""

from __future__ import annotations

import random
import socket
import ssl

import pytest

from tests.e2e.conftest import Start
from tests.e2e.harness import LOCAL, SERVERS, SLOW_TO_SLEEP, Zenvoy, gated, request, server

TIMEOUT_SECONDS = 30.0


def tcp(name: str, mode: str, **fields: object) -> dict[str, object]:
    return {"name": name, "protocol": "tcp", "command": server("tcp", mode), **fields}


@pytest.fixture(scope="module")
def z(shared_zenvoy: Start) -> Zenvoy:
    return shared_zenvoy(
        tcp("mail", "greet"),
        tcp("turn", "reverse", command=gated(server("tcp", "reverse"), "turn")),
        tcp("echo", "echo", command=gated(server("tcp", "echo"), "echo")),
        tcp("late", "late"),
        {"name": "late-web", "hosts": ["late.localhost"], "command": server("tcp", "late")},
        tls("blue"),
        tls("green"),
        defaults=SLOW_TO_SLEEP,
    )


def dial(port: int) -> socket.socket:
    return socket.create_connection((LOCAL, port), timeout=TIMEOUT_SECONDS)


def read_all(connection: socket.socket) -> bytes:
    """Read until the other side ends."""
    return b"".join(iter(lambda: connection.recv(65_536), b""))


def read_exactly(connection: socket.socket, length: int) -> bytes:
    received = b""
    while len(received) < length and (data := connection.recv(length - len(received))):
        received += data
    return received


def test_tcp_server_speaks_first_client_is_greeted(z: Zenvoy) -> None:
    seen = []
    for _ in range(3):
        z.asleep("mail")
        with dial(z.port("mail")) as connection:
            assert connection.recv(1000) == b"220 mail is ready\r\n", "though the client has not said a word"
            connection.sendall(b"HELO\r\n")
            assert connection.recv(1000) == b"HELO\r\n"
            client = "{}:{}".format(*connection.getsockname())
        assert z.woken("mail")["lastWake"]["peer"] == client, "the client itself, and not Envoy"
        seen.append(z.sleep("mail")["requests"])
    assert z.wakes("mail") == 3
    assert seen[2] - seen[1] == seen[1] - seen[0] == 1, "each connection is counted"


def test_tcp_half_closing_client_reads_the_whole_reply(z: Zenvoy) -> None:
    """The client sends everything and ends its side while the service still sleeps."""
    z.asleep("turn")
    small = b"the end comes first"
    with dial(z.port("turn")) as connection:
        connection.sendall(small)
        connection.shutdown(socket.SHUT_WR)
        z.wait_status("it waits", "turn", lambda view: view["held"] == 1)
        z.open_gate("turn")
        assert read_all(connection) == small[::-1]
    z.sleep("turn")
    z.asleep("turn")
    with dial(z.port("turn")) as connection:
        large = random.Random(3).randbytes(5_000_000)
        connection.sendall(large)
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection) == large[::-1]
    assert z.wakes("turn") == 2


def test_tcp_client_leaving_early_is_not_replayed(z: Zenvoy) -> None:
    gone = dial(z.port("echo"))
    gone.sendall(b"never mind")
    with dial(z.port("echo")) as stays:
        z.wait_status("both wait", "echo", lambda view: view["held"] == 2)
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        gone.close()
        z.wait_status("one is gone", "echo", lambda view: (view["held"], view["gone"]) == (1, 1))
        z.open_gate("echo")
        assert stays.makefile().readline().startswith("process ")
    assert z.status("echo")["gone"] == 1


def test_tcp_reset_before_an_answer_is_not_seen_by_the_client(z: Zenvoy) -> None:
    z.asleep("late")
    with dial(z.port("late")) as connection:
        connection.sendall(b"question")
        assert read_all(connection).endswith(b"\r\n\r\nquestion")
    z.wait_status(
        "it is counted once", "late", lambda view: (view["relayed"], view["held"], view["refused"]) == (0, 0, 0)
    )


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_http_reset_before_an_answer_is_not_seen_by_the_client(z: Zenvoy, method: str) -> None:
    z.sleep("late-web")
    z.asleep("late-web")
    reply = request(z.http_port, "late.localhost", method=method)
    assert (reply.status, reply.body) == (200, method.encode())


def trusting(color: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(SERVERS / f"{color}.pem"))


def tls(color: str) -> dict[str, object]:
    command = server("tcp", "greet", str(SERVERS / f"{color}.pem"))
    return {"name": color, "protocol": "tls", "hosts": [f"{color}.localhost"], "command": command}


def speak(z: Zenvoy, color: str, name: str) -> bytes:
    """Check the service's own certificate in a handshake, then its greeting and an echo."""
    with dial(z.tls_port) as plain, trusting(color).wrap_socket(plain, server_hostname=name) as connection:
        greeting = connection.recv(1000)
        connection.sendall(b"x" * 100_000)
        assert read_exactly(connection, 100_000) == b"x" * 100_000
        return greeting


def test_tls_server_name_selects_the_service(z: Zenvoy) -> None:
    z.sleep("blue")
    z.sleep("green")
    z.asleep("blue")
    z.asleep("green")
    assert speak(z, "green", "green.localhost") == b"220 green is ready\r\n"
    z.woken("green")
    z.asleep("blue")
    assert speak(z, "blue", "blue.localhost") == b"220 blue is ready\r\n"
    z.woken("blue")
    with pytest.raises(ssl.SSLCertVerificationError):
        speak(z, "green", "blue.localhost")
    z.sleep("green")
    z.asleep("green")
    with (
        dial(z.tls_port) as plain,
        trusting("green").wrap_socket(plain, server_hostname="green.localhost") as connection,
    ):
        assert connection.recv(1000) == b"220 green is ready\r\n"
        client = "{}:{}".format(*connection.getsockname())
    assert z.woken("green")["lastWake"]["peer"] == client, "the client itself, and not Envoy"


def test_tls_unknown_server_name_is_closed(z: Zenvoy) -> None:
    with dial(z.tls_port) as plain, pytest.raises((ssl.SSLEOFError, ConnectionError)):
        trusting("blue").wrap_socket(plain, server_hostname="red.localhost")
