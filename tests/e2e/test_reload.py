"""Reloads of the services file: unchanged services are not touched, and nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Start
from tests.e2e.harness import LOCAL, QUICK, ZENVOY, Reply, Zenvoy, quick, request, until
from tests.ports import free_port

STAYS = {**QUICK, "idleAfter": "10m", "drainTimeout": "30s"}
APPLIED = "the file is applied"


def web(name: str = "web", *options: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "command": quick("http", *options), **more}


def db(name: str = "db", **more: Any) -> dict[str, Any]:
    return {"name": name, "protocol": "tcp", "command": quick("tcp"), **more}


def apply(z: Zenvoy, *services: dict[str, Any], **config: Any) -> None:
    """Write the file; return once it is in force."""
    said = len(z.lines())
    z.write({"defaults": STAYS, **config, "services": list(services)})
    z.wait_line("it is applied", lambda entry: entry["event"] == APPLIED, said)


@contextmanager
def kept(port: int, host: str) -> Iterator[Any]:
    """Provide a keep-alive connection: call it to send a request."""
    connection = HTTPConnection(LOCAL, port, timeout=60)

    def ask(path: str = "/") -> str:
        connection.request("GET", path, headers={"Host": host})
        response = connection.getresponse()
        body = response.read().decode()
        assert response.status == 200, body
        assert connection.sock, "Envoy kept it open"
        return body

    try:
        connection.connect()
        yield ask
    finally:
        connection.close()


def ask_line(client: socket.socket, text: str) -> str:
    client.sendall(f"{text}\n".encode())
    return client.recv(1000).decode()


def test_reload_adds_and_removes_services(zenvoy: Start) -> None:
    z = zenvoy(web("stays"), web("goes"), db("old"), defaults=STAYS)
    for name in ("stays", "goes", "old"):
        z.wake(name)
    pids = {name: z.service_pids(name) for name in ("stays", "goes", "old")}
    with kept(z.http_port, "stays") as ask, socket.create_connection((LOCAL, z.port("old"))) as client:
        assert ask("/1") == "stays /1\n"
        assert ask_line(client, "pid") == f"{pids['old'][0]}\n"
        apply(z, web("stays"), db("old"), web("new"), db("more"))
        assert ask("/2") == "stays /2\n"
        assert ask_line(client, "pid") == f"{pids['old'][0]}\n"
        until("Envoy knows it", lambda: request(z.http_port, "new").status != 404)
        assert request(z.http_port, "new").body == b"new /\n"
        until("Envoy listens", lambda: not refused(z.port("more")))
        with socket.create_connection((LOCAL, z.port("more"))) as other:
            assert ask_line(other, "x") == "more x\n"
        until("Envoy has forgotten it", lambda: request(z.http_port, "goes").status == 404)
        until("what is gone has ended", lambda: not z.service_pids("goes"))
        apply(z, web("stays"), web("new"))
        until("its listener is gone", lambda: refused(int(client.getpeername()[1])))
        assert ask_line(client, "pid") == f"{pids['old'][0]}\n"
        client.close()
        until("what is gone has ended", lambda: not z.service_pids("old"))
        assert ask("/3") == "stays /3\n"
    assert z.service_pids("stays") == pids["stays"]
    assert sorted(z.statuses()) == ["new", "stays"]
    assert [entry["target"] for entry in z.transitions("stays") if entry["target"] == "Waking"] == ["Waking"]
    apply(z, web("stays"), web("goes"))
    until("Envoy knows it again", lambda: request(z.http_port, "goes").status != 404)
    assert request(z.http_port, "goes").body == b"goes /\n"


def test_reload_removed_service_finishes_requests(zenvoy: Start, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    z = zenvoy(web("stays"), web("goes"), db("old"), defaults=STAYS)
    z.wake("goes")
    z.wake("old")
    old_port = z.port("old")
    with ThreadPoolExecutor() as pool, socket.create_connection((LOCAL, old_port)) as client:
        assert ask_line(client, "1") == "old 1\n"
        long = pool.submit(request, z.http_port, "goes", f"/until{gate}")
        until("the request is with the service", lambda: "asked" in z.output("goes"))
        apply(z, web("stays"))
        until("requests are no longer routed there", lambda: request(z.http_port, "goes").status == 404)
        until("nor there", lambda: refused(old_port))
        time.sleep(3)  # longer than two samples take
        assert ask_line(client, "2") == "old 2\n"
        gate.touch()
        assert long.result().body == f"goes /until{gate}\n".encode()
        until("it has ended", lambda: not z.service_pids("goes"))
        assert ask_line(client, "3") == "old 3\n"
    until("so has the other", lambda: not z.service_pids("old"))


def test_reload_removed_service_stops_after_drain_timeout(zenvoy: Start) -> None:
    others = {**STAYS, "drainTimeout": "10m"}
    z = zenvoy(web("stays"), db("old", drainTimeout="1s"), defaults=others)
    z.wake("old")
    with socket.create_connection((LOCAL, z.port("old"))) as client:
        assert ask_line(client, "1") == "old 1\n"
        apply(z, web("stays"), defaults=others)
        until("it has ended", lambda: not z.service_pids("old"))
        assert client.recv(1) == b""


def test_reload_service_added_again_continues(zenvoy: Start) -> None:
    z = zenvoy(web("stays"), db("old"), defaults=STAYS)
    z.wake("old")
    pids = z.service_pids("old")
    with socket.create_connection((LOCAL, z.port("old"))) as client:
        assert ask_line(client, "1") == "old 1\n"
        apply(z, web("stays"))
        apply(z, web("stays"), db("old", listen=f"{LOCAL}:{client.getpeername()[1]}"))
        z.wait_state("old", "Active", "Idle")
        until("Envoy listens", lambda: not refused(int(client.getpeername()[1])))
        assert ask_line(client, "2") == "old 2\n"
    assert z.service_pids("old") == pids


def test_reload_port_moves_to_another_service(zenvoy: Start) -> None:
    z = zenvoy(db("one"), defaults=STAYS)
    z.wake("one")
    port, stop = z.port("one"), threading.Event()

    def hammer() -> set[str]:
        said = set()
        while not stop.is_set():
            with socket.create_connection((LOCAL, port), timeout=60) as client:
                said.add(ask_line(client, "x"))
        return said

    with ThreadPoolExecutor() as pool:
        hammers = [pool.submit(hammer) for _ in range(4)]
        try:
            for name in ("two", "three", "four"):
                apply(z, db(name, listen=f"{LOCAL}:{port}"))
                z.wait_state(name, "Active", "Idle")
        finally:
            stop.set()
        said = set.union(*(each.result() for each in hammers))
    assert {"two x\n", "three x\n"} < said <= {"one x\n", "two x\n", "three x\n", "four x\n"}


def refused(port: int) -> bool:
    try:
        socket.create_connection((LOCAL, port)).close()
    except ConnectionRefusedError:
        return True
    return False


def test_reload_sighup_reports_an_unchanged_file(zenvoy: Start) -> None:
    z = zenvoy(web(), defaults=STAYS)
    z.wake("web")
    pids = z.service_pids("web")
    assert z.process
    z.process.send_signal(signal.SIGHUP)
    z.wait_line("it says so", lambda entry: entry["event"] == "the file has not changed")
    said = len(z.lines())
    z.write({"services": [web(), web("more")], "defaults": STAYS})
    z.process.send_signal(signal.SIGHUP)
    z.wait_line("it is applied", lambda entry: entry["event"] == APPLIED, said)
    until("Envoy knows it", lambda: request(z.http_port, "more").status != 404)
    assert request(z.http_port, "more").body == b"more /\n"
    assert z.service_pids("web") == pids
    assert z.stop() == 0


def test_reload_invalid_file_reports_all_problems(zenvoy: Start) -> None:
    z = zenvoy(web(), db(), defaults=STAYS)
    z.wake("web")
    z.wake("db")
    pids = {name: z.service_pids(name) for name in ("web", "db")}
    good = z.file.read_text()
    with kept(z.http_port, "web") as ask, socket.create_connection((LOCAL, z.port("db"))) as client:
        assert (ask("/1"), ask_line(client, "1")) == ("web /1\n", "db 1\n")
        bad = good.replace("idleAfter: 10m", "idleAfter: soon").replace("name: db", "name: web")
        bad = bad.replace("protocol: tcp", "protocl: tcp")
        texts = (bad, ("soon", "protocl", "'web' is already used")), ("services: [", ("YAML",)), ("", ("empty",))
        for text, mistakes in texts:
            said = len(z.lines())
            z.file.write_text(text)
            listed: list[str] = []

            def reported(
                entry: dict[str, Any], listed: list[str] = listed, mistakes: tuple[str, ...] = mistakes
            ) -> bool:
                if entry["event"].startswith("the file has mistakes"):
                    listed[:] = entry["problems"]  # a file that is being written may be read half-way
                return bool(listed) and all(any(mistake in line for line in listed) for mistake in mistakes)

            z.wait_line("all mistakes are reported", reported, said)
            assert all(str(z.file) in line for line in listed)
        z.file.unlink()
        z.wait_line("so is a file that is gone", lambda entry: "cannot be read" in str(entry.get("problems")))
        assert (ask("/2"), ask_line(client, "2")) == ("web /2\n", "db 2\n")
        assert {name: z.service_pids(name) for name in ("web", "db")} == pids
        said = len(z.lines())
        z.file.write_text(good.replace("idleAfter: 10m", "idleAfter: 20m"))
        z.wait_line("it is applied", lambda entry: entry["event"] == APPLIED, said)
        assert (ask("/3"), ask_line(client, "3")) == ("web /3\n", "db 3\n")


def test_reload_port_of_an_option_is_a_problem(zenvoy: Start) -> None:
    ours = {option: free_port() for option in ("--metrics", "--holder-metrics", "--grpc")}
    options = tuple(word for option, port in ours.items() for word in (option, f"{LOCAL}:{port}"))
    z = zenvoy(web(), defaults=STAYS, options=options)
    services = [web()] + [db(option.strip("-"), listen=f"{LOCAL}:{port}") for option, port in ours.items()]
    z.write({"defaults": STAYS, "services": services})
    entry = z.wait_line("it is reported", lambda entry: entry["event"].startswith("the file has mistakes"))
    for number, ((option, port), line) in enumerate(zip(ours.items(), entry["problems"], strict=True), 1):
        assert line.startswith(f"{z.file}:")
        assert line.endswith(
            f": services[{number}].listen: {LOCAL}:{port} is already used by {option}; choose another port"
        )
    said = len(z.lines())
    z.kill("reconciler")
    z.wait_line("it is reported again", lambda entry: entry["event"].startswith("the file has mistakes"), said)
    until("what was good is in force", lambda: request(z.http_port, "web").body == b"web /\n")
    assert list(z.statuses()) == ["web"]
    assert not [entry for entry in z.lines() if "rejected" in entry["event"]]
    apply(z, web(), db(listen=f"{LOCAL}:{free_port()}"))


def test_reload_last_good_file_survives_a_crash(zenvoy: Start) -> None:
    z = zenvoy(web(), defaults=STAYS)
    z.wake("web")
    apply(z, web(), web("more"))
    pids = z.service_pids("web")
    z.file.write_text("services: [")
    z.wait_line("it is reported", lambda entry: entry["event"].startswith("the file has mistakes"))
    said = len(z.lines())
    z.kill("reconciler")
    z.wait_line("it is reported again", lambda entry: entry["event"].startswith("the file has mistakes"), said)
    z.wait_state("web", "Active", "Idle")
    assert z.service_pids("web") == pids
    assert request(z.http_port, "more").body == b"more /\n"
    apply(z, web())
    assert list(z.statuses()) == ["web"]


def test_reload_changed_timings_take_effect(zenvoy: Start) -> None:
    z = zenvoy(web(), web("other"), defaults=STAYS)
    for name in ("web", "other"):
        z.wake(name)
        z.wait_state(name, "Idle")
    pids = z.service_pids("other")
    apply(z, web(idleAfter="1s"), web("other"))
    z.wait_state("web", "ScaledToZero")
    z.wait_state("other", "Idle")
    assert z.service_pids("other") == pids
    with z.kept_awake("web"):
        assert request(z.http_port, "web").status == 200
        apply(z, web(idleAfter="10m"), web("other"))
    view = z.wait_state("web", "Idle")
    assert view["deadline"]["event"] == "IdleElapsed"
    apply(z, web(idleAfter="1s", paused=True), web("other"))
    z.stays_awake("web", 1.5)
    assert z.status("web")["paused"]


def test_reload_hold_timeout_applies_to_waiting_clients(zenvoy: Start, tmp_path: Path) -> None:
    gate = f"gate={tmp_path / 'gate'}"
    z = zenvoy(web("web", gate), defaults={**STAYS, "holdTimeout": "10m"})
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(request, z.http_port, "web")
        z.wait_status("it is held", "web", lambda view: view["held"] == 1)
        apply(z, web("web", gate, holdTimeout="1s"))
        reply = waiting.result()
    assert reply.status == 503
    assert b"holdTimeout" in reply.body


@pytest.mark.parametrize("state", ["ScaledToZero", "Waking", "Idle"])
def test_rollout_loses_no_request(zenvoy: Start, tmp_path: Path, state: str) -> None:
    never = [f"gate={tmp_path / 'never'}"] if state == "Waking" else []
    z = zenvoy(web("web", *never), defaults=STAYS)
    with ThreadPoolExecutor() as pool:
        if state == "Idle":
            z.wake("web")
            z.wait_state("web", "Idle")
        waiting = pool.submit(request, z.http_port, "web", "/before") if state == "Waking" else None
        if waiting:
            z.wait_status("it is held", "web", lambda view: view["held"] == 1)
        apply(z, web("web", "as=new"))
        if waiting:
            assert waiting.result().body == b"new /before\n"
        around = [pool.submit(later, z, place / 20) for place in range(10)]
        assert {reply.result().body for reply in around} <= {b"web /x\n", b"new /x\n"}
    if state == "Idle" and b"new /x\n" not in {reply.result().body for reply in around}:
        z.wait_state("web", "ScaledToZero")
    assert request(z.http_port, "web", "/x").body == b"new /x\n"
    assert len(z.service_pids("web")) == 1


def later(z: Zenvoy, seconds: float) -> Reply:
    time.sleep(seconds)  # places the request
    return request(z.http_port, "web", "/x")


def test_rollout_waits_for_requests_in_flight(zenvoy: Start, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    z = zenvoy(web(drainTimeout="1s"), defaults=STAYS)
    z.wake("web")
    (old,) = z.service_pids("web")
    with ThreadPoolExecutor() as pool:
        long = pool.submit(request, z.http_port, "web", f"/until{gate}")
        until("the request is with the service", lambda: "asked" in z.output("web"))
        apply(z, web("web", "as=new", drainTimeout="1s"))
        in_vain = ("Draining", "Active")
        z.wait_line("it does not drain", lambda entry: (entry.get("source"), entry.get("target")) == in_vain)
        assert z.service_pids("web") == [old]
        gate.touch()
        assert long.result().body == f"web /until{gate}\n".encode()
    z.wait_state("web", "ScaledToZero")
    assert request(z.http_port, "web").body == b"new /\n"


def test_rollout_under_steady_load_completes(zenvoy: Start) -> None:
    steady = {"idleAfter": "3s", "drainTimeout": "3s"}  # it is tried again where one connection is in use all the time
    z = zenvoy(web(**steady), defaults=STAYS)
    stop = threading.Event()

    def hammer() -> set[bytes]:
        said = set()
        while not stop.is_set():
            said.add(request(z.http_port, "web", "/x").body)
        return said

    with ThreadPoolExecutor() as pool:
        try:
            with z.kept_awake("web"):
                z.wake("web")
                (old,) = z.service_pids("web")
                hammers = [pool.submit(hammer) for _ in range(4)]
                z.wait_status("it is in use", "web", lambda view: (view["traffic"] or {}).get("usage") == "traffic")
            apply(z, web("web", "as=new", **steady))
            until("the new one answers", lambda: request(z.http_port, "web", "/x").body == b"new /x\n")
            z.ask("POST", "/v1/services/web/pause")
        finally:
            stop.set()
        assert set.union(*(each.result() for each in hammers)) <= {b"web /x\n", b"new /x\n"}
    assert old not in z.service_pids("web")
    assert "ScaledToZero" not in z.states("web")[2:]
    assert len([entry for entry in z.lines() if entry["event"] == "woken"]) == 1, "what is renewed does not wake"


def test_rollout_in_flight_connection_delays_it(zenvoy: Start, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    z = zenvoy(web(idleAfter="2s", drainTimeout="1s"), defaults=STAYS)
    z.wake("web")
    with ThreadPoolExecutor() as pool:
        long = pool.submit(request, z.http_port, "web", f"/until{gate}")
        until("the request is with the service", lambda: "asked" in z.output("web"))
        apply(z, web("web", "as=new", idleAfter="2s", drainTimeout="1s"))
        z.wait_line("it is tried", lambda entry: "new connections wait" in entry["event"])
        z.wait_line("in vain", lambda entry: "replacing the program later" in entry["event"])
        assert request(z.http_port, "web").body == b"web /\n"
        gate.touch()
        assert long.result().body == f"web /until{gate}\n".encode()
    until("the new one answers", lambda: request(z.http_port, "web", "/x").body == b"new /x\n")


def test_reload_listen_addresses_move(zenvoy: Start) -> None:
    z = zenvoy(web(), db(), defaults=STAYS)
    z.wake("web")
    z.wake("db")
    pids = {name: z.service_pids(name) for name in ("web", "db")}
    old_http, old_db, new_http, new_db = z.http_port, z.port("db"), free_port(), free_port()
    apply(z, web(), db(listen=f"{LOCAL}:{new_db}"), listen={"http": f"{LOCAL}:{new_http}"})
    until("the new one listens", lambda: not refused(new_http))
    assert request(new_http, "web").body == b"web /\n"
    until("the new one listens", lambda: not refused(new_db))
    with socket.create_connection((LOCAL, new_db)) as client:
        assert ask_line(client, "x") == "db x\n"
    for port in (old_http, old_db):
        until("the old one is closed", partial(refused, port))
    assert {name: z.service_pids(name) for name in ("web", "db")} == pids
    z.sleep("web")
    assert request(new_http, "web").body == b"web /\n"


def test_reload_changed_listener_keeps_its_connections(zenvoy: Start) -> None:
    z = zenvoy(web(), db(), defaults=STAYS)
    connection = HTTPConnection(LOCAL, z.http_port, timeout=60)
    with closing(connection), socket.create_connection((LOCAL, z.port("db")), 60) as client:
        assert ask_line(client, "before") == "db before\n"
        connection.request("GET", "/", headers={"Host": "web"})
        assert connection.getresponse().read() == b"web /\n"
        apply(z, web(), proxy={"keepalive": "30s", "http": {"maxHeaders": 500}})

        def is_asked_to_close() -> bool:
            connection.request("GET", "/", headers={"Host": "web"})
            response = connection.getresponse()
            assert response.read() == b"web /\n"
            return response.headers["connection"] == "close"

        until("Envoy uses the changed listener", is_asked_to_close)
        assert ask_line(client, "after") == "db after\n"
    options = server_info(z)["command_line_options"]
    assert (options["drain_time"], options["drain_strategy"]) == ("31536000s", "Immediate")


def server_info(z: Zenvoy) -> dict[str, Any]:
    """Return what Envoy's admin port reports of the process."""
    directory = os.open(z.state_dir, os.O_PATH)
    try:
        with closing(HTTPConnection("admin", timeout=60)) as admin:
            admin.sock = socket.socket(socket.AF_UNIX)
            admin.sock.connect(f"/proc/self/fd/{directory}/envoy.sock")
            admin.request("GET", "/server_info")
            found: dict[str, Any] = json.load(admin.getresponse())
    finally:
        os.close(directory)
    return found


def test_reload_listen_address_in_use_is_reported(zenvoy: Start) -> None:
    z = zenvoy(web(), defaults=STAYS)
    with socket.create_server((LOCAL, free_port())) as taken:
        port = taken.getsockname()[1]
        z.write({"services": [web(), db(listen=f"{LOCAL}:{port}")], "defaults": STAYS})
        z.wait_line("Envoy reports the reason", lambda entry: str(port) in str(entry.get("reason")))
        assert request(z.http_port, "web").body == b"web /\n"
        until("status has it", lambda: str(port) in z.cli("status").stdout)
    z.sleep("web")
    assert request(z.http_port, "web").body == b"web /\n"


def test_status_shows_envoy_rejection_until_fixed(zenvoy: Start) -> None:
    z = zenvoy(web(), defaults=STAYS)
    watched = z.directory / "watched"
    with watched.open("wb") as out:
        command = [str(ZENVOY), "status", "--watch", "--state-dir", str(z.state_dir)]
        watching = subprocess.Popen(command, stdout=out)
    try:
        apply(z, web(), db(listen="192.0.2.1:15432"))
        reported = "rejected a configuration"
        z.wait_status("its part is found", "db", lambda view: "192.0.2.1:15432" in (view["rejected"] or ""))
        until("it is reported", lambda: reported in z.cli("status").stdout)
        assert reported in z.cli("status", "web").stdout
        until("the watching client is notified", lambda: reported in watched.read_text())
        assert reported not in z.cli("status", "web", "-o", "json").stdout
        rejected = {
            one["name"]: one["rejected"] for one in json.loads(z.cli("status", "-o", "json").stdout)["services"]
        }
        assert "192.0.2.1:15432" in rejected["db"]
        assert rejected["web"] is None
        assert "Envoy rejects a part of it" in z.cli("explain", "db").stdout
        assert "service db" in z.cli("doctor").stdout
        apply(z, web(), db(listen=f"{LOCAL}:{free_port()}"))
        until("it is over", lambda: reported not in z.cli("status").stdout)
        assert "Envoy rejects a part of it" not in z.cli("explain", "db").stdout
        assert reported not in z.cli("status", "web").stdout
    finally:
        watching.send_signal(signal.SIGINT)
        assert watching.wait(60) == 0


def test_reload_protocol_changes(zenvoy: Start) -> None:
    z = zenvoy({"name": "it", "command": quick("http")}, defaults=STAYS)
    assert request(z.http_port, "it").body == b"it /\n"
    apply(z, db("it"))
    z.wait_state("it", "ScaledToZero")

    def answers() -> bool:
        try:
            with socket.create_connection((LOCAL, z.port("it"))) as client:
                return ask_line(client, "x") == "it x\n"
        except OSError:
            return False

    until("it answers as TCP", answers)


def test_reload_repeated_loses_nothing(zenvoy: Start) -> None:
    z = zenvoy(web(), db(), defaults=STAYS)
    z.wake("web")
    z.wake("db")
    stop = threading.Event()

    def hammer() -> int:
        served = 0
        with kept(z.http_port, "web") as ask, socket.create_connection((LOCAL, z.port("db"))) as client:
            while not stop.is_set():
                path = f"/{served}"
                assert ask(path) == f"web {path}\n"
                assert ask_line(client, path) == f"db {path}\n"
                assert request(z.http_port, "web", path).body == f"web {path}\n".encode()
                with socket.create_connection((LOCAL, z.port("db"))) as other:
                    assert ask_line(other, path) == f"db {path}\n"
                served += 1
        return served

    with ThreadPoolExecutor() as pool:
        served = pool.submit(hammer)
        try:
            for number in range(10):
                more = [web(f"web{number}"), db(f"db{number}"), web("third", hosts=[f"h{number}.localhost"])]
                apply(z, web(), db(), *more)
        finally:
            stop.set()
        assert served.result() > 0
    assert z.output("web").count("started") == 1
