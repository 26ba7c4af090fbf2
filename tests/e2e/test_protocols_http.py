"""HTTP in all its forms is answered in full on a wake, byte for byte."""

from __future__ import annotations

import hashlib
import http.client
import random
import re
import socket
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.e2e.conftest import Start
from tests.e2e.harness import LOCAL, SLOW_TO_SLEEP, Zenvoy, gated, request, server, until

SECOND = {"idleAfter": "1s"}


def hello(name: str) -> bytes:
    return f"hello from {name}: /hello\n".encode()


def web(name: str, **fields: object) -> dict[str, object]:
    return {"name": name, "hosts": [f"{name}.localhost"], "command": server("http_echo"), **fields}


@pytest.fixture(scope="module")
def z(shared_zenvoy: Start) -> Zenvoy:
    return shared_zenvoy(
        web("web"),
        {"name": "two", "protocol": "h2c", "command": server("h2c")},
        web("one"),
        {"name": "chat", "hosts": ["chat.localhost"], "command": server("websocket"), **SECOND},
        web("events"),
        web("upload", command=gated(server("http_echo"), "upload")),
        web("kept"),
        web("named"),
        web("alone", **SECOND),
        web("crowd", command=gated(server("http_echo"), "crowd")),
        defaults=SLOW_TO_SLEEP,
    )


def curl(*arguments: str) -> bytes:
    """Return the output of curl; it must succeed."""
    done = subprocess.run(
        ["curl", "--silent", "--show-error", "--fail", "--max-time", "60", *arguments], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.mark.curl
def test_http1_curl_wakes(z: Zenvoy, tmp_path: Path) -> None:
    z.asleep("web")
    assert curl("-H", "X-Forwarded-For: 10.9.8.7", f"http://web.localhost:{z.http_port}/hello") == hello("web")
    view = z.woken("web")
    peer = view["lastWake"]["peer"]  # of a client on loopback, Envoy gives the machine's own address
    assert str(ip_address(peer)) == peer != "10.9.8.7", "the client itself, and not who it claims to be"
    assert view["lastWake"]["total"] > 0
    assert (view["held"], view["refused"], view["stalled"]) == (0, 0, None)
    body = random.Random(1).randbytes(300_000)
    (tmp_path / "body").write_bytes(body)
    z.sleep("web")
    z.asleep("web")
    upload = ["--data-binary", f"@{tmp_path / 'body'}"]
    assert curl(*upload, "-H", "Host: web", f"http://{LOCAL}:{z.http_port}/echo") == body
    z.sleep("web")
    z.asleep("web")
    chunked = ["-H", "Transfer-Encoding: chunked", *upload]
    assert curl(*chunked, f"http://web.localhost:{z.http_port}/echo") == body
    assert z.wakes("web") == 3
    z.woken("web")
    shown = z.cli("status").stdout
    assert re.search(r"^web +(Active|Idle) .*signal .*, started .*, reachable .*, firstByte ", shown, re.MULTILINE), (
        shown
    )


@pytest.mark.curl
def test_h2c_curl_wakes(z: Zenvoy) -> None:
    prior, two = ["--http2-prior-knowledge", "--data-binary", "x" * 100_000], ["-H", "Host: two"]
    url = f"http://{LOCAL}:{z.http_port}/a/b?c=d"
    answer = b"POST /a/b?c=d\n" + b"x" * 100_000
    z.asleep("two")
    assert curl(*prior, *two, "-w", " over %{http_version}", url) == answer + b" over 2"
    assert z.woken("two")["protocol"] == "h2c"
    z.sleep("two")
    z.asleep("two")
    assert curl("--http1.1", *prior[1:], *two, url) == answer, "Envoy speaks to each side in its own way"
    z.asleep("one")
    assert curl("--http2-prior-knowledge", f"http://one.localhost:{z.http_port}/hello") == hello("one")
    z.woken("one")


def test_websocket_wakes_and_stays_open(z: Zenvoy) -> None:
    z.asleep("chat")
    messages: list[str | bytes] = ["hello", "ü" * 1000, b"\0\1\2" * 100_000]
    plain = socket.create_connection((LOCAL, z.http_port))
    with connect("ws://chat.localhost/", sock=plain, max_size=None, ping_interval=None) as chat:
        for message in messages:
            chat.send(message)
            assert chat.recv(timeout=60) == message
        z.woken("chat")
        z.stays_awake("chat", 3)
        chat.send("still there?")
        assert chat.recv(timeout=60) == "still there?"
    z.wait_state("chat", "ScaledToZero")
    assert z.wakes("chat") == 1


def test_server_sent_events_arrive_one_by_one(z: Zenvoy) -> None:
    """The server sends each event only after the client, having read the one before, asked for it."""
    z.asleep("events")
    connection = http.client.HTTPConnection(LOCAL, z.http_port, timeout=60)
    connection.request("GET", "/events/5", headers={"Host": "events", "Accept": "text/event-stream"})
    response = connection.getresponse()
    assert response.headers["content-type"] == "text/event-stream"
    for count in range(5):
        lines = [response.readline() for _ in range(3)]
        assert lines == [f"id: {count}\n".encode(), f"data: event {count}\n".encode(), b"\n"]
        assert request(z.http_port, "events", "/next").status == 200
    assert response.read() == b""
    connection.close()
    assert z.wakes("events") == 1
    z.woken("events")


def test_upload_of_100_mb_to_a_sleeping_service_succeeds(z: Zenvoy) -> None:
    z.asleep("upload")
    chunk, number = random.Random(2).randbytes(1_000_000), 100
    digest = hashlib.sha256()
    watched = {name: pid for name, pid in z.pids().items() if name != "up"}
    before = {name: most_memory(pid) for name, pid in watched.items()}

    def chunks() -> Iterator[bytes]:
        for count in range(number):
            if count == 1:
                z.wait_status(
                    "the upload waits", "upload", lambda view: view["state"] == "Waking" and view["held"] == 1
                )
                z.open_gate("upload")
            digest.update(chunk)
            yield chunk

    connection = http.client.HTTPConnection(LOCAL, z.http_port, timeout=60)
    connection.request("POST", "/sha256", chunks(), {"Host": "upload", "Content-Length": str(number * len(chunk))})
    assert connection.getresponse().read() == f"{number * len(chunk)} {digest.hexdigest()}\n".encode()
    connection.close()
    grown = {name: most_memory(pid) - before[name] for name, pid in watched.items()}
    assert all(kilobytes < 30_000 for kilobytes in grown.values()), grown
    z.woken("upload")


def most_memory(pid: int) -> int:
    """Return the most memory that a process ever had resident, in kilobytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))


def test_keep_alive_connection_survives_a_sleep(z: Zenvoy) -> None:
    connection = http.client.HTTPConnection(LOCAL, z.http_port, timeout=60)
    connection.connect()
    own = connection.sock.getsockname()

    def get() -> bytes:
        connection.request("GET", "/hello", headers={"Host": "kept"})
        return connection.getresponse().read()

    counted = []
    for _ in range(3):
        z.asleep("kept")
        assert get() == hello("kept")
        z.wait_state("kept", "Active", "Idle")
        assert get() == hello("kept")
        counted.append(z.sleep("kept")["requests"])
    assert connection.sock is not None
    assert connection.sock.getsockname() == own, "it is the same connection all the time"
    connection.close()
    assert z.wakes("kept") == 3
    assert counted[2] - counted[1] == counted[1] - counted[0] == 2, "each request is counted"


def test_unknown_host_gets_an_explanation(z: Zenvoy) -> None:
    reply = request(z.http_port, "unknown.localhost")
    assert (reply.status, reply.body) == (404, b"zenvoy: no service has the host name unknown.localhost\n")
    z.asleep("named")
    for name in ("named", "NAMED", f"named.localhost:{z.http_port}", "named.localhost:80"):
        assert request(z.http_port, name, "/hello").body == hello("named")


def test_idle_service_sleeps_and_wakes_again(z: Zenvoy) -> None:
    for _ in range(2):
        z.asleep("alone")
        assert request(z.http_port, "alone", "/hello").body == hello("alone")
        z.wait_state("alone", "ScaledToZero")
    moves = z.transitions("alone")
    awakened = [
        entry["cause"] for entry in moves if entry["source"] in ("Idle", "Draining") and entry["target"] == "Active"
    ]
    assert set(awakened) <= {"TrafficUnknown"}, "which it is if the machine stops for a moment"
    states = " ".join(z.states("alone"))
    assert re.fullmatch("( ?Waking Active( Idle( Draining)? Active)* Idle Draining ScaledToZero){2}", states), states
    # Either the holder or a sample is the first to report the request.
    assert moves[0]["reason"].startswith(("a client is waiting", "Envoy reported traffic"))
    assert all("idleAfter" in entry["reason"] for entry in moves if entry["target"] == "Draining")
    until("its process is gone", lambda: not z.service_pids("alone"))


def test_wake_with_many_clients_starts_once(z: Zenvoy) -> None:
    waiting = ask_many(z, 20)
    z.wait_status("all wait", "crowd", lambda view: view["held"] == 20)
    z.open_gate("crowd")
    for connection in waiting:
        assert connection.getresponse().read() == hello("crowd")
        connection.close()
    assert z.wakes("crowd") == 1


def ask_many(z: Zenvoy, number: int) -> list[http.client.HTTPConnection]:
    """Send requests over a connection each, without reading the answers."""
    connections = [http.client.HTTPConnection(LOCAL, z.http_port, timeout=60) for _ in range(number)]
    for connection in connections:
        connection.request("GET", "/hello", headers={"Host": "crowd"})
    return connections
