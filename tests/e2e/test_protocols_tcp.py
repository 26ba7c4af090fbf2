"""Plain TCP and TLS by name are answered in full on a wake, byte for byte."""

from __future__ import annotations

import random
import re
import socket
import ssl
import threading
import urllib.request
from contextlib import suppress

import pytest

from tests.e2e.conftest import Start
from tests.e2e.harness import LOCAL, SERVERS, SLOW_TO_SLEEP, Zenvoy, gated, request, server, until
from tests.ports import free_port

TIMEOUT_SECONDS = 60.0
HOLDER_METRICS = f"{LOCAL}:{free_port()}"


def tcp(name: str, mode: str, **fields: object) -> dict[str, object]:
    return {"name": name, "protocol": "tcp", "command": server("tcp", mode), **fields}


@pytest.fixture(scope="module")
def z(shared_zenvoy: Start) -> Zenvoy:
    return shared_zenvoy(
        tcp("mail", "greet"),
        tcp("turn", "reverse", command=gated(server("tcp", "reverse"), "turn")),
        tcp("echo", "echo", command=gated(server("tcp", "echo"), "echo")),
        tcp("probed", "greet", wake={"by": "bytes"}, idle={"by": "bytes"}),
        tcp("pool", "greet", idle={"by": "bytes"}, idleAfter="300ms"),
        tcp("late", "late"),
        {"name": "late-web", "hosts": ["late.localhost"], "command": server("tcp", "late")},
        tls("blue"),
        tls("green"),
        defaults=SLOW_TO_SLEEP,
        options=("--holder-metrics", HOLDER_METRICS),
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


def probes_ended(service: str) -> float:
    """Return how many connections to a service ended in silence, by the holder's metrics."""
    with urllib.request.urlopen(f"http://{HOLDER_METRICS}/metrics", timeout=TIMEOUT_SECONDS) as answer:
        text = answer.read().decode()
    found = re.search(rf'^zenvoy_holder_silent_ended_total{{service="{service}"}} (\S+)$', text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_tcp_probe_does_not_wake_by_bytes(z: Zenvoy) -> None:
    z.asleep("probed")
    for _ in range(5):
        dial(z.port("probed")).close()
    until("the probes are counted", lambda: probes_ended("probed") == 5)
    with dial(z.port("probed")) as silent, dial(z.port("probed")) as connection:
        connection.sendall(b"hello")
        assert read_exactly(connection, 26) == b"220 probed is ready\r\nhello"
        client = "{}:{}".format(*connection.getsockname())
        assert read_exactly(silent, 21) == b"220 probed is ready\r\n", "an awake service greets it"
    assert z.woken("probed")["lastWake"]["peer"] == client
    assert z.wakes("probed") == 1
    z.sleep("probed")
    dial(z.port("probed")).close()
    until("the probe is counted", lambda: probes_ended("probed") == 6)
    assert z.status("probed")["state"] == "ScaledToZero"


def test_tcp_client_that_always_reconnects_makes_idle_time_grow(z: Zenvoy) -> None:
    """The client is greeted and then silent, and reconnects whenever it is closed."""
    ended = threading.Event()

    def reconnect() -> None:
        while not ended.is_set():
            with suppress(OSError), dial(z.port("pool")) as connection:
                read_all(connection)

    client = threading.Thread(target=reconnect)
    client.start()
    try:
        found = z.wait_status("its wakes serve nothing", "pool", lambda view: view["unserved"])["unserved"]
    finally:
        ended.set()
        z.sleep("pool")
        z.sleep("pool")
        client.join(TIMEOUT_SECONDS)
    assert found["reason"] == "WakesUnserved"
    assert found["idleAfter"] == pytest.approx(0.3 * 2 ** found["wakes"])


def trusting(color: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(SERVERS / f"{color}.pem"))


def tls(color: str) -> dict[str, object]:
    command = server("tcp", "greet", str(SERVERS / f"{color}.pem"))
    return {
        "name": color,
        "protocol": "tls",
        "hosts": [f"{color}.localhost", f"*.{color}.example.com"],
        "command": command,
    }


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


@pytest.mark.parametrize("name", ["Blue.LocalHost", "blue.localhost.", "a.blue.example.com", "a.blue.example.com."])
def test_tls_server_name_in_another_form_selects_the_service(z: Zenvoy, name: str) -> None:
    context = trusting("blue")
    context.check_hostname = False
    with dial(z.tls_port) as plain, context.wrap_socket(plain, server_hostname=name) as connection:
        assert connection.recv(1000) == b"220 blue is ready\r\n"


def test_tls_unknown_server_name_is_closed(z: Zenvoy) -> None:
    with dial(z.tls_port) as plain, pytest.raises((ssl.SSLEOFError, ConnectionError)):
        trusting("blue").wrap_socket(plain, server_hostname="red.localhost")
