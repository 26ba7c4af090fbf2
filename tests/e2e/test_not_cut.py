"""Connections in use are not cut by sleep, however silent they are: `idleAfter` is 1 s, the silence is longer.

Open database transactions are in `test_databases.py`, open gRPC streams in `test_protocols_grpc.py`.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.sync.client import ClientConnection, connect

from tests.e2e.conftest import Start
from tests.e2e.harness import LOCAL, Reply, View, Zenvoy, request, server, until

TIMEOUT_SECONDS = 60.0
SILENCE_SECONDS = 3.0
BYTES = {"idle": {"by": "bytes"}, "idleAfter": "10m"}


@pytest.fixture(scope="module")
def z(shared_zenvoy: Start) -> Zenvoy:
    web, chat, tcp = server("http_echo"), server("websocket"), server("tcp", "echo")
    return shared_zenvoy(
        {"name": "long", "command": web},
        {"name": "longer", "command": web},
        {"name": "commanded", "command": web, "drainTimeout": "1s", "idleAfter": "10m"},
        {"name": "drained", "command": web, "idleAfter": "10m"},
        {"name": "chat", "hosts": ["chat.localhost"], "command": chat, "drainTimeout": "5s"},
        {"name": "silent", "hosts": ["silent.localhost"], "command": chat, **BYTES},
        {"name": "polite", "hosts": ["polite.localhost"], "command": [*chat, "goodbye"], **BYTES},
        {"name": "held", "protocol": "tcp", "command": tcp},
        {"name": "direct", "protocol": "tcp", "command": tcp},
    )


@contextmanager
def request_in_flight(z: Zenvoy, name: str, folder: Path) -> Iterator[Future[Reply]]:
    """Keep a request in flight for the block; afterwards it gets its reply."""
    gate = folder / "gate"
    with ThreadPoolExecutor() as threads:
        asked = threads.submit(request, z.http_port, name, f"/until{gate}")
        try:
            yield asked
        finally:
            gate.touch()
        assert asked.result().body == b"done\n"


def test_request_longer_than_idle_after_is_not_cut(z: Zenvoy, tmp_path: Path) -> None:
    with ExitStack() as stack:
        with z.kept_awake("long"):
            assert request(z.http_port, "long", "/hello").status == 200
            z.wait_state("long", "Idle")
            stack.enter_context(request_in_flight(z, "long", tmp_path))
            z.wait_state("long", "Active")
        z.stays_awake("long", SILENCE_SECONDS)
    z.wait_state("long", "ScaledToZero")
    assert z.wakes("long") == 1


def test_request_that_woke_the_service_is_not_cut(z: Zenvoy, tmp_path: Path) -> None:
    """Send a request that goes through the holder from its first byte to its last."""
    with request_in_flight(z, "longer", tmp_path):
        z.wait_status("it is relayed", "longer", lambda view: view["state"] == "Active" and view["relayed"] == 1)
        z.stays_awake("longer", SILENCE_SECONDS)
    z.wait_state("longer", "ScaledToZero")
    assert z.wakes("longer") == 1


def test_sleep_command_cuts_no_request(z: Zenvoy, tmp_path: Path) -> None:
    assert request(z.http_port, "commanded", "/hello").status == 200
    z.wait_straight("commanded")
    with request_in_flight(z, "commanded", tmp_path):
        z.wait_status("it is in flight", "commanded", in_flight)

        def names_the_request() -> bool:
            """Return whether a sample of the drain was complete within `drainTimeout`."""
            done = z.cli("sleep", "commanded")
            assert done.returncode == 1
            assert "commanded is Active: " in done.stdout
            return "1 request in flight" in done.stdout

        until("the command names the request", names_the_request)
    until("it drains within `drainTimeout`", lambda: z.cli("sleep", "commanded").returncode == 0)
    z.asleep("commanded")


def test_sleep_command_waits_for_requests(z: Zenvoy, tmp_path: Path) -> None:
    assert request(z.http_port, "drained", "/hello").status == 200
    with ThreadPoolExecutor() as threads:
        with request_in_flight(z, "drained", tmp_path):
            z.wait_status("it is in flight", "drained", in_flight)
            command = threads.submit(z.cli_sleep, "drained")
            z.wait_state("drained", "Draining")
        assert command.result().returncode == 0
    z.asleep("drained")


def test_drain_new_requests_keep_the_service_awake(z: Zenvoy, tmp_path: Path) -> None:
    """Let a request in flight prolong the drain; another one then arrives through the holder."""
    assert request(z.http_port, "drained", "/hello").status == 200
    with request_in_flight(z, "drained", tmp_path) as slow:
        z.wait_status("it is in flight", "drained", in_flight)
        pids = z.service_pids("drained")
        assert z.ask("POST", "/v1/services/drained/sleep")["state"] == "Draining"
        z.wait_status("Envoy has the hold route", "drained", lambda view: view["route"]["ackedAt"])
        assert request(z.http_port, "drained", "/hello").body == b"hello from drained: /hello\n"
        assert not slow.done()
        assert z.states("drained")[-2:] == ["Draining", "Active"]
    assert z.service_pids("drained") == pids


def test_websocket_open_keeps_the_service_awake(z: Zenvoy) -> None:
    z.wake("chat")
    plain = socket.create_connection((LOCAL, z.http_port))
    with connect("ws://chat.localhost/", sock=plain, ping_interval=None) as chat:
        chat.send("one")
        assert chat.recv(timeout=TIMEOUT_SECONDS) == "one"
        z.wait_state("chat", "Active")
        z.stays_awake("chat", SILENCE_SECONDS)
        assert z.cli("sleep", "chat").returncode == 1
        chat.send("two")
        assert chat.recv(timeout=TIMEOUT_SECONDS) == "two"
    z.wait_state("chat", "ScaledToZero")


@pytest.mark.parametrize(("name", "code"), [("silent", CloseCode.ABNORMAL_CLOSURE), ("polite", CloseCode.GOING_AWAY)])
def test_websocket_silent_is_closed_by_a_sleep(z: Zenvoy, name: str, code: CloseCode) -> None:
    """The program may send a close frame when it is stopped; Envoy sends none."""
    z.asleep(name)
    with websocket(z, name) as held:
        held.send("one")
        assert held.recv(timeout=TIMEOUT_SECONDS) == "one"
        z.woken(name)
        with websocket(z, name) as direct:
            direct.send("two")
            assert direct.recv(timeout=TIMEOUT_SECONDS) == "two"
            assert z.cli_sleep(name).returncode == 0
            for client in (held, direct):
                with pytest.raises(ConnectionClosed):
                    client.recv(timeout=TIMEOUT_SECONDS)
                assert client.protocol.close_code == code
    z.wait_state(name, "ScaledToZero")
    assert z.wakes(name) == 1


def websocket(z: Zenvoy, name: str) -> ClientConnection:
    """Connect without pings, so that the connection is silent."""
    plain = socket.create_connection((LOCAL, z.http_port))
    return connect(f"ws://{name}.localhost/", sock=plain, ping_interval=None)


def test_tcp_connection_open_keeps_the_service_awake(z: Zenvoy) -> None:
    with ExitStack() as stack:
        with z.kept_awake("direct"):
            z.wake("direct")
            z.wait_straight("direct")
            held, direct = (stack.enter_context(dial(z.port(name))) for name in ("held", "direct"))
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


def in_flight(view: View) -> bool:
    return bool(view["traffic"]) and view["traffic"]["reason"].endswith(" 1 in flight")


def dial(port: int) -> socket.socket:
    return socket.create_connection((LOCAL, port), timeout=TIMEOUT_SECONDS)
