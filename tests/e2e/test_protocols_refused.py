"""Refusals: the client gets a reason in its protocol, and the status shows the same."""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import time

import pytest
from h2.connection import H2Connection
from h2.events import StreamEnded, StreamReset

from tests.e2e.conftest import Start
from tests.e2e.harness import LOCAL, QUICK, Zenvoy, gated, request, server, until

IMPATIENT = {"holdTimeout": "1s"}
BROKEN = ["sh", "-c", "echo first line; echo cannot use port {port}; exit 7"]
UNTIL_MENDED = ["sh", "-c", 'test -e mended || { date +%N; exit 3; }; exec "$@"', "sh", *server("http_echo")]
"""Its reason is another one at each exit."""


@pytest.fixture(scope="module")
def z(shared_zenvoy: Start) -> Zenvoy:
    return shared_zenvoy(
        {"name": "web", "command": BROKEN, **IMPATIENT},
        {"name": "open", "command": BROKEN, **IMPATIENT, "refusalDetails": True},
        {"name": "two", "protocol": "h2c", "command": BROKEN, **IMPATIENT},
        {"name": "db", "protocol": "tcp", "command": BROKEN, **IMPATIENT},
        {"name": "mended", "command": UNTIL_MENDED, **IMPATIENT, "wakeTimeout": "2s"},
        {"name": "full", "command": gated(server("http_echo"), "full"), "maxHeld": 2},
        {"name": "full-db", "protocol": "tcp", "command": gated(server("tcp", "greet"), "full-db"), "maxHeld": 1},
        defaults={**QUICK, "holdTimeout": "10m", "wakeTimeout": "10m"},
    )


def wait_exited(z: Zenvoy, name: str) -> None:
    """Wake a service, and wait until its program has exited: a slow machine does not start it within `holdTimeout`."""
    z.wake_until("its program has exited", name, lambda view: "exited with code 7" in (view["stalled"] or ""))


def test_refusal_http_names_class_and_reference(z: Zenvoy) -> None:
    z.asleep("web")
    wait_exited(z, "web")
    before = time.monotonic()
    reply = request(z.http_port, "web")
    waited = time.monotonic() - before
    assert waited > 0.9, "a crash may be over a moment later: it is held for as long as it may"
    assert reply.status == 503
    assert int(reply.headers["retry-after"]) >= 1
    assert reply.headers["content-type"].startswith("text/plain")
    text = reply.body.decode()
    found = re.fullmatch(
        r"web did not start within \d+\.\d s \(holdTimeout\): Exited \(reference ([0-9a-f]{8})\)\n", text
    )
    assert found, text
    view = z.status("web")
    assert view["reference"] == found[1]
    assert f"(reference {found[1]})" in z.cli("explain", "web").stdout
    z.wait_line("the log knows the reference", lambda entry: entry.get("reference") == found[1])
    assert view["state"] == "Waking"
    assert "exited with code 7" in view["stalled"] and "cannot use port" in view["stalled"]
    z.wait_status("it is counted", "web", lambda view: view["refused"] == 1)
    assert "exited with code 7" in z.cli("status", "web").stdout
    assert json.loads(z.cli("status", "web", "-o", "json").stdout)["stalled"]
    z.wait_line("the log has it too", lambda entry: "exited with code 7" in entry.get("reason", ""))


def test_refusal_details_allowed_names_the_reason(z: Zenvoy) -> None:
    wait_exited(z, "open")
    text = request(z.http_port, "open").body.decode()
    assert "exited with code 7" in text
    assert "first line | cannot use port" in text


def test_wake_stalled_ends_without_clients_and_retries(
    z: Zenvoy,
) -> None:
    assert request(z.http_port, "mended").status == 503
    view = z.wait_state("mended", "ScaledToZero")
    assert view["stalled"] is None
    (z.directory / "mended").touch()

    def is_answered() -> bool:
        """Return whether the program started within `holdTimeout`."""
        reply = request(z.http_port, "mended", "/")
        assert (reply.status, reply.body) == (200, b"hello from mended: /\n") or reply.status == 503
        return reply.status == 200

    until("it is woken", is_answered)


@pytest.mark.curl
def test_refusal_h2c_names_class_and_reference(z: Zenvoy) -> None:
    wait_exited(z, "two")
    command = ["curl", "-sS", "-i", "--http2-prior-knowledge", "--max-time", "60", "-H", "Host: two"]
    done = subprocess.run([*command, f"http://{LOCAL}:{z.http_port}/"], capture_output=True, text=True, check=True)
    head, _, body = done.stdout.replace("\r", "").partition("\n\n")
    assert head.startswith("HTTP/2 503")
    assert "\nretry-after: " in head
    assert re.match(r"two did not start within \d+\.\d s ", body)
    assert ": Exited (reference " in body


def test_refusal_h2c_of_head_has_no_body(z: Zenvoy) -> None:
    client = H2Connection()
    ended: set[int] = set()
    client.initiate_connection()
    for stream, method in ((1, "HEAD"), (3, "GET"), (5, "HEAD")):
        head = [(":method", method), (":scheme", "http"), (":path", "/"), (":authority", "two")]
        client.send_headers(stream, head, end_stream=True)
    with socket.create_connection((LOCAL, z.http_port), 60) as sock:
        sock.sendall(client.data_to_send())
        while ended != {1, 3, 5}:
            data = sock.recv(65_536)
            assert data, "the connection was closed"
            events = client.receive_data(data)
            assert not [event for event in events if isinstance(event, StreamReset)]
            ended |= {event.stream_id for event in events if isinstance(event, StreamEnded)}
            sock.sendall(client.data_to_send())


def test_refusal_tcp_resets_the_connection(z: Zenvoy) -> None:
    wait_exited(z, "db")
    with socket.create_connection((LOCAL, z.port("db")), timeout=60) as connection:
        connection.sendall(b"hello")
        with pytest.raises(ConnectionResetError):
            connection.recv(1000)
    view = z.wait_status("it is counted", "db", lambda view: view["refused"] == 1)
    assert "exited with code 7" in view["stalled"]


def test_hold_limit_http_refuses_at_once(z: Zenvoy) -> None:
    waiting = [http.client.HTTPConnection(LOCAL, z.http_port, timeout=60) for _ in range(2)]
    for connection in waiting:
        connection.request("GET", "/", headers={"Host": "full"})
    z.wait_status("two wait", "full", lambda view: view["held"] == 2)
    reply = request(z.http_port, "full")
    assert reply.status == 503
    assert "retry-after" in reply.headers
    assert b"2 connections are already held (maxHeld)" in reply.body
    z.wait_status("it is counted at once", "full", lambda view: (view["refused"], view["held"]) == (1, 2))
    z.open_gate("full")
    for connection in waiting:
        assert connection.getresponse().read() == b"hello from full: /\n"
        connection.close()


def test_hold_limit_tcp_resets_at_once(z: Zenvoy) -> None:
    with socket.create_connection((LOCAL, z.port("full-db")), timeout=60) as first:
        z.wait_status("one waits", "full-db", lambda view: view["held"] == 1)
        with (
            socket.create_connection((LOCAL, z.port("full-db")), timeout=60) as second,
            pytest.raises(ConnectionResetError),
        ):
            second.recv(1000)
        z.wait_status("once", "full-db", lambda view: (view["refused"], view["held"]) == (1, 1))
        z.open_gate("full-db")
        assert first.recv(1000) == b"220 full-db is ready\r\n"
