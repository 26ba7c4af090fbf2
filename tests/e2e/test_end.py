"""The end of `zenvoy up`: requests in flight finish, and programs have their drainTimeout."""

from __future__ import annotations

import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.conftest import Start
from tests.e2e.harness import LOCAL, QUICK, Zenvoy, quick, request, until

STAYS = {**QUICK, "idleAfter": "10m", "drainTimeout": "30s"}
SAVES = "trap 'sleep 4; echo saved; kill $!; exit 0' TERM; \"$@\" & wait; wait"
"""Runs a program that takes 4 s to stop."""


def redis(name: str, **more: Any) -> dict[str, Any]:
    command = ["redis-server", "--port", "{port}", "--bind", LOCAL, "--dir", ".", "--save", "3600 1"]
    return {"name": name, "protocol": "tcp", "command": [*command, *more.pop("options", [])], **more}


def ask_redis(client: socket.socket, *words: str) -> str:
    client.sendall(f"{' '.join(words)}\r\n".encode())
    return client.recv(1000).decode().strip()


def redis_client(z: Zenvoy, name: str) -> socket.socket:
    return socket.create_connection((LOCAL, z.port(name)), timeout=60)


def waiting_lines(z: Zenvoy) -> list[str]:
    return [entry["event"] for entry in z.lines() if entry["event"].startswith("waiting for ")]


def test_up_end_lets_redis_write_its_dump(zenvoy: Start) -> None:
    slow = ["--enable-debug-command", "yes", "--rdb-key-save-delay", "3000"]  # µs for each key
    z = zenvoy(redis("redis", options=slow, drainTimeout="2m"), defaults=STAYS)
    with redis_client(z, "redis") as client:
        assert ask_redis(client, "SET important written") == "+OK"
        assert ask_redis(client, "DEBUG POPULATE 1200") == "+OK"
    assert z.stop(signal.SIGINT) == 0
    assert "Redis is now ready to exit" in z.output("redis")
    assert any(line.startswith("waiting for redis to stop (up to ") for line in waiting_lines(z))
    assert not z.leftovers()
    z.start()
    with redis_client(z, "redis") as client:
        assert ask_redis(client, "GET important").endswith("written")
        assert ask_redis(client, "CONFIG SET rdb-key-save-delay 0") == "+OK"


def test_up_end_lets_a_request_in_flight_finish(zenvoy: Start, tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    gate = tmp_path / "gate"
    z = zenvoy({"name": "web", "command": quick("http")}, defaults=STAYS)
    z.wake("web")
    long = pool.submit(request, z.http_port, "web", f"/until{gate}")
    until("the request is with the service", lambda: "asked" in z.output("web"))
    assert z.process
    z.process.send_signal(signal.SIGTERM)
    z.wait_line("it waits", lambda entry: entry["event"].startswith("waiting for 1 request to web (up to "))
    with pytest.raises(ConnectionRefusedError):
        request(z.http_port, "web")
    gate.touch()
    assert long.result().body == f"web /until{gate}\n".encode()
    assert z.process.wait(60) == 0
    assert not z.leftovers()


def test_up_end_signals_leave_no_process(zenvoy: Start) -> None:
    z = zenvoy({"name": "web", "command": quick("http")}, defaults=STAYS)
    assert z.process

    def is_logged(name: str, entry: dict[str, Any]) -> bool:
        return entry.get("signal") == name

    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM):
        z.process.send_signal(number)
        z.wait_line("it continues", partial(is_logged, number.name))
    assert request(z.http_port, "web").status == 200
    assert z.stop(signal.SIGQUIT) == 0
    assert not z.leftovers()


def test_up_end_lets_a_held_request_finish(zenvoy: Start, tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    gate = tmp_path / "gate"
    z = zenvoy({"name": "web", "command": quick("http", f"gate={gate}")}, defaults=STAYS)
    held = pool.submit(request, z.http_port, "web")
    z.wait_status("it is held", "web", lambda view: view["held"] == 1)
    assert z.process
    z.process.send_signal(signal.SIGTERM)
    z.wait_line("it waits", lambda entry: entry["event"].startswith("waiting for 1 held connection to web"))
    gate.touch()
    assert held.result().body == b"web /\n"
    assert z.process.wait(60) == 0
    assert not z.leftovers()


def test_up_further_signals_shorten_the_end(zenvoy: Start) -> None:
    z = zenvoy(
        {"name": "db", "protocol": "tcp", "command": quick("tcp", "stubborn"), "drainTimeout": "10m"},
        defaults=STAYS,
    )
    z.wake("db")
    (pid,) = z.service_pids("db")
    with socket.create_connection((LOCAL, z.port("db")), timeout=60) as client:
        client.sendall(b"x\n")
        assert client.recv(100) == b"db x\n"
        assert z.process
        z.process.send_signal(signal.SIGINT)
        z.wait_line("it waits", lambda entry: entry["event"].startswith("waiting for 1 connection to db (up to "))
        client.sendall(b"y\n")
        assert client.recv(100) == b"db y\n"
        z.process.send_signal(signal.SIGINT)
        z.wait_line("it waits", lambda entry: entry["event"].startswith("waiting for db to stop (up to "))
        assert psutil.pid_exists(pid)
        z.process.send_signal(signal.SIGINT)
        assert z.process.wait(60) == 0
    assert not z.leftovers()


@pytest.mark.parametrize("killed", ["reconciler", "up"])
def test_process_orphaned_by_a_kill_gets_drain_timeout(zenvoy: Start, killed: str) -> None:
    command = ["sh", "-c", SAVES, "sh", *quick("http")]
    z = zenvoy({"name": "web", "command": command, "drainTimeout": "1m"}, defaults=STAYS)
    z.wake("web")
    z.kill(killed)
    if killed == "up":
        assert z.process
        z.process.wait()
        z.start()
    assert z.stop() == 0
    assert "saved" in z.output("web")
    assert not z.leftovers()
