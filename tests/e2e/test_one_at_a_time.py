"""Programs that share data never run at the same time, and nothing that a service started outlives it."""

from __future__ import annotations

import contextlib
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

from tests.e2e.conftest import Start
from tests.e2e.harness import LOCAL, QUICK, Zenvoy, quick, request, until

STAYS = {**QUICK, "idleAfter": "10m", "holdTimeout": "60s", "drainTimeout": "30s"}
APPLIED = "the file is applied"
WAITS = "waits for the end of "


def redis(name: str, *options: str, **more: Any) -> dict[str, Any]:
    command = ["redis-server", "--port", "{port}", "--bind", LOCAL, "--dir", ".", "--save", "3600 1", *options]
    return {"name": name, "protocol": "tcp", "command": command, **more}


def ask(client: socket.socket, *words: str) -> str:
    client.sendall(f"{' '.join(words)}\r\n".encode())
    return client.recv(1000).decode().strip()


def connected(z: Zenvoy, name: str) -> socket.socket:
    return socket.create_connection((LOCAL, z.port(name)), timeout=60)


def apply(z: Zenvoy, *services: dict[str, Any]) -> None:
    said = len(z.lines())
    z.write({"defaults": STAYS, "services": list(services)})
    z.wait_line("it is applied", lambda entry: entry["event"] == APPLIED, said)


def programs(z: Zenvoy, name: str = "redis-server") -> list[int]:
    """Return the processes of that name which run in the folder of this zenvoy."""
    wanted = {"name": name, "cwd": str(z.directory)}
    return [process.pid for process in psutil.process_iter(list(wanted)) if process.info == wanted]


def test_service_renamed_starts_after_the_old_one(zenvoy: Start, pool: ThreadPoolExecutor) -> None:
    z = zenvoy(redis("cache"), defaults=STAYS)
    listen = z.config["services"][0]["listen"]
    with connected(z, "cache") as old:
        assert ask(old, "SET a before") == "+OK"
        (pid,) = z.service_pids("cache")
        apply(z, redis("store", listen=listen))

        def write() -> str:
            with connected(z, "store") as client:
                return ask(client, "SET b new")

        new = [pool.submit(write)]

        def waits(view: dict[str, Any]) -> bool:
            if new[-1].done():  # the listener had not passed to the new service yet
                new.append(pool.submit(write))
            return view["held"] == 1 and WAITS + "cache" in (view["stalled"] or "")

        z.wait_status("it waits", "store", waits)
        assert programs(z) == [pid]
        assert ask(old, "SET c acknowledged") == "+OK"
    assert {write.result() for write in new} == {"+OK"}
    assert pid not in programs(z)
    with connected(z, "store") as client:
        values = [ask(client, f"GET {key}").splitlines()[-1] for key in "abc"]
    assert values == ["before", "new", "acknowledged"]


def test_service_renamed_after_a_crash_of_up_waits(zenvoy: Start) -> None:
    slow = ["--enable-debug-command", "yes", "--rdb-key-save-delay", "1000"]  # µs for each key
    z = zenvoy(redis("cache", *slow), defaults=STAYS)
    listen = z.config["services"][0]["listen"]
    with connected(z, "cache") as client:
        assert ask(client, "DEBUG POPULATE 2000") == "+OK"
        assert ask(client, "SET a acknowledged") == "+OK"
    z.kill_together("up", "reconciler")
    assert z.process
    z.process.wait()
    z.write({"defaults": STAYS, "services": [redis("store", listen=listen)]})
    z.start()
    with connected(z, "store") as client:
        assert ask(client, "GET a").splitlines()[-1] == "acknowledged"
    assert len(programs(z)) == 1


def test_services_with_swapped_folders_never_overlap(zenvoy: Start, tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    z = zenvoy(*(redis(name, workingDirectory=str(at)) for name, at in zip("ab", folders, strict=True)), defaults=STAYS)
    with connected(z, "a") as client:
        assert ask(client, "SET of a") == "+OK"
        apply(z, *(redis(name, workingDirectory=str(at)) for name, at in zip("ba", folders, strict=True)))

        def read() -> str:
            with connected(z, "b") as other:
                return ask(other, "GET of")

        later = pool.submit(read)
        z.wait_status("it waits", "b", lambda view: WAITS + "a" in (view["stalled"] or ""))
        assert ask(client, "SET of all") == "+OK"
    z.sleep("a")
    assert later.result().splitlines()[-1] == "all"


def test_service_sharing_nothing_does_not_wait(zenvoy: Start, tmp_path: Path) -> None:
    z = zenvoy({"name": "old", "protocol": "tcp", "command": quick("tcp")}, defaults=STAYS)
    with connected(z, "old") as client:
        client.sendall(b"x\n")
        assert client.recv(100) == b"old x\n"
        command = ["python3", "-m", "http.server", "{port}", "--bind", LOCAL]
        apply(z, {"name": "web", "command": command, "workingDirectory": str(tmp_path)})
        z.wake("web")
        client.sendall(b"y\n")
        assert client.recv(100) == b"old y\n"


def test_program_that_daemonizes_is_ended_once(zenvoy: Start) -> None:
    z = zenvoy(redis("db", "--daemonize", "yes"), defaults={**STAYS, "holdTimeout": "3s"})
    with connected(z, "db") as client, contextlib.suppress(ConnectionResetError):
        assert client.recv(1) == b"", "it is refused after holdTimeout"
    z.wait_line("it has ended", lambda entry: entry["event"] == "service ended by itself")
    until("nothing of it is left", lambda: not programs(z))
    (ended,) = [entry for entry in z.lines() if entry["event"] == "service ended by itself"]
    assert "must stay in the foreground" in ended["how"]
    assert z.stop(signal.SIGINT) == 0
    assert not programs(z)


def test_child_in_another_session_ends_with_the_service(zenvoy: Start) -> None:
    """Redis overwrites its environment and title; double fork, setsid, and a parent that has exited."""
    extra = "redis-server --port 0 --unixsocket redis.sock --daemonize yes --save '' >/dev/null"
    command = ["sh", "-c", f'{extra}; exec "$@"', "sh", *quick("http")]
    z = zenvoy({"name": "web", "command": command}, defaults=STAYS)
    assert request(z.http_port, "web").status == 200
    until("it runs", lambda: programs(z))
    z.kill("reconciler")
    until("the next reconciler serves", lambda: z.state("web") in ("Active", "Idle"))
    z.sleep("web")
    until("it has ended", lambda: not programs(z))
    assert request(z.http_port, "web").status == 200
    until("it runs", lambda: programs(z))
    z.kill_together("up", "reconciler")
    assert z.process
    z.process.wait()
    z.write({"defaults": STAYS, "services": [{"name": "other", "command": quick("http")}]})
    z.start()
    until("what was left has ended", lambda: not programs(z))
