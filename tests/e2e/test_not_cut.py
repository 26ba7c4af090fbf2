"""Whatever is in use is not cut by sleep, however silent it is: `idleAfter` is 1 s, the silence is longer.

Open database transactions are in `test_databases.py`, open gRPC streams in `test_protocols_grpc.py`.
"""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

from websockets.sync.client import connect

from tests.e2e.conftest import Start
from tests.e2e.harness import LOCAL, QUICK, request, server

TIMEOUT_SECONDS = 30.0
SILENCE_SECONDS = 3.0


def test_long_request(zenvoy: Start) -> None:
    z = zenvoy({"name": "web", "command": server("http_echo")})
    assert request(z.http_port, "web", "/hello").status == 200
    z.wait_state("web", "Idle")
    with ThreadPoolExecutor() as threads:
        slow = threads.submit(request, z.http_port, "web", "/slow/4")
        z.wait_state("web", "Active")
        z.stays_awake("web", SILENCE_SECONDS)
        assert slow.result().body == b"slow 4\n"
    z.wait_state("web", "ScaledToZero")
    assert z.wakes("web") == 1


def test_long_request_that_woke_it(zenvoy: Start) -> None:
    """This one goes through the holder from its first byte to its last."""
    z = zenvoy({"name": "web", "command": server("http_echo")})
    with ThreadPoolExecutor() as threads:
        slow = threads.submit(request, z.http_port, "web", "/slow/4")
        z.wait_status("it is relayed", "web", lambda view: view["state"] == "Active" and view["relayed"] == 1)
        z.stays_awake("web", SILENCE_SECONDS)
        assert slow.result().body == b"slow 4\n"
    z.wait_state("web", "ScaledToZero")
    assert z.wakes("web") == 1


def test_sleep_by_command_does_not_cut_a_request(zenvoy: Start) -> None:
    z = zenvoy({"name": "web", "command": server("http_echo")}, defaults={**QUICK, "drainTimeout": "1s"})
    assert request(z.http_port, "web", "/hello").status == 200
    with ThreadPoolExecutor() as threads:
        slow = threads.submit(request, z.http_port, "web", "/slow/4")
        z.wait_status("it is in flight", "web", lambda view: view["traffic"]["reason"].endswith("1 in flight"))
        told = z.cli("sleep", "web")
        assert told.returncode == 1
        assert "web is Active: " in told.stdout and "1 in flight" in told.stdout
        assert slow.result().body == b"slow 4\n"
    assert z.cli("sleep", "web").returncode == 0
    z.asleep("web")


def test_requests_that_come_while_it_drains_keep_it_awake(zenvoy: Start) -> None:
    """Draining is made to last by a request in flight; another one then comes by the holder."""
    z = zenvoy({"name": "web", "command": server("http_echo")}, defaults={**QUICK, "idleAfter": "10m"})
    assert request(z.http_port, "web", "/hello").status == 200
    with ThreadPoolExecutor() as threads:
        slow = threads.submit(request, z.http_port, "web", "/slow/3")
        z.wait_status("it is in flight", "web", lambda view: view["traffic"]["reason"].endswith("1 in flight"))
        pids = z.service_pids("web")
        assert z.ask("POST", "/v1/services/web/sleep")["state"] == "Draining"
        assert request(z.http_port, "web", "/hello").body == b"hello from web: /hello\n"
        assert not slow.done()
        assert slow.result().body == b"slow 3\n"
    assert z.states("web")[-2:] == ["Draining", "Active"]
    assert z.service_pids("web") == pids


def test_open_websocket(zenvoy: Start) -> None:
    z = zenvoy({"name": "chat", "hosts": ["chat.localhost"], "command": server("websocket")})
    z.wake("chat")
    plain = socket.create_connection((LOCAL, z.http_port))
    with connect("ws://chat.localhost/", sock=plain, ping_interval=None) as chat:
        chat.send("one")
        assert chat.recv(timeout=20) == "one"
        z.wait_state("chat", "Active")
        z.stays_awake("chat", SILENCE_SECONDS)
        assert z.cli("sleep", "chat").returncode == 1
        chat.send("two")
        assert chat.recv(timeout=20) == "two"
    z.wait_state("chat", "ScaledToZero")


def test_open_tcp_connection(zenvoy: Start) -> None:
    z = zenvoy(
        {"name": "held", "protocol": "tcp", "command": server("tcp", "echo")},
        {"name": "direct", "protocol": "tcp", "command": server("tcp", "echo")},
    )
    z.wake("direct")
    with dial(z.port("held")) as held, dial(z.port("direct")) as direct:
        greetings = [connection.recv(1000) for connection in (held, direct)]
        z.wait_status("one is relayed", "held", lambda view: view["relayed"] == 1)
        z.wait_status("the other is not", "direct", lambda view: view["state"] == "Active" and not view["relayed"])
        z.stays_awake("held", SILENCE_SECONDS)
        z.stays_awake("direct", 0.1)
        for connection, greeting in zip((held, direct), greetings, strict=True):
            connection.sendall(b"still there?")
            assert connection.recv(1000) == b"still there?"
            assert greeting.startswith(b"process ")
    for name in ("held", "direct"):
        z.wait_state(name, "ScaledToZero")
        assert z.wakes(name) == 1


def dial(port: int) -> socket.socket:
    return socket.create_connection((LOCAL, port), timeout=TIMEOUT_SECONDS)
