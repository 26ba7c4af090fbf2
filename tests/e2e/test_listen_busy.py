"""Listen addresses in use by another program: the old one stays, everything else is applied, and it is retried."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import ExitStack
from functools import partial
from typing import Any

from tests.e2e.conftest import Start
from tests.e2e.harness import LOCAL, SLOW_TO_SLEEP, Zenvoy, quick, request, until
from tests.ports import free_port

WEB = {"name": "web", "command": quick("http")}


def db(port: int, name: str = "db") -> dict[str, Any]:
    return {"name": name, "protocol": "tcp", "listen": f"{LOCAL}:{port}", "command": quick("tcp")}


def said(port: int) -> str | None:
    """Return the answer to a line at a port, if anything listens there."""
    try:
        with socket.create_connection((LOCAL, port), timeout=60) as client:
            client.sendall(b"x\n")
            return client.recv(100).decode()
    except OSError:
        return None


def http(port: int) -> int | None:
    try:
        return request(port, "web").status
    except OSError:
        return None


def write(z: Zenvoy, *services: dict[str, Any], **more: Any) -> int:
    """Write the file; return the number of log lines before."""
    before = len(z.lines())
    z.write({"defaults": SLOW_TO_SLEEP, "services": list(services), **more})
    return before


def busy(z: Zenvoy, owner: str, after: int) -> str:
    """Return the log entry about an address that its service does not get."""

    def is_it(entry: dict[str, Any]) -> bool:
        return entry["event"] == "cannot listen" and entry["owner"] == owner

    return str(z.wait_line(f"{owner} cannot listen", is_it, after)["reason"])


def test_listener_tcp_keeps_its_address_until_new_one_is_free(zenvoy: Start) -> None:
    old, new = free_port(), free_port()
    z = zenvoy(WEB, db(old), defaults=SLOW_TO_SLEEP)
    assert said(old) == "db x\n"
    with socket.create_server((LOCAL, new)):
        before = write(z, WEB, db(new), {"name": "more", "command": quick("http")})
        why = busy(z, "db", before)
        assert f"{LOCAL}:{new}: Address already in use; it is used by process {os.getpid()}: " in why
        assert f"it still listens on {LOCAL}:{old}" in why
        assert said(old) == "db x\n"
        until("the rest of the file is applied", lambda: request(z.http_port, "more").status == 200)
        for command in (("status",), ("status", "db"), ("doctor",)):
            text = " ".join(z.cli(*command).stdout.split())
            assert f"{LOCAL}:{new}" in text and f"process {os.getpid()}" in text, command
        checked = z.cli("check", str(z.file))
        assert checked.returncode == 0
        assert f"{LOCAL}:{new}: Address already in use; it is used by process {os.getpid()}" in checked.stderr
        assert f"{LOCAL}:{z.http_port}" not in checked.stderr, "zenvoy's own"
    until("the new address is taken", lambda: said(new) == "db x\n")
    until("the old one is closed", lambda: said(old) is None)
    z.wait_line("it says so", lambda entry: entry["event"] == "listening" and entry["owner"] == "db", before)
    assert "cannot listen" not in z.cli("status").stdout


def test_listener_shared_keeps_its_address_until_new_one_is_free(zenvoy: Start) -> None:
    z = zenvoy(WEB, {"name": "sealed", "protocol": "tls", "command": quick("tcp")}, defaults=SLOW_TO_SLEEP)
    old, new, old_tls, new_tls = z.http_port, free_port(), z.tls_port, free_port()
    with socket.create_server((LOCAL, new)), socket.create_server((LOCAL, new_tls)):
        listen = {"http": f"{LOCAL}:{new}", "tls": f"{LOCAL}:{new_tls}"}
        before = write(z, *z.config["services"], listen=listen)
        busy(z, "listen.http", before)
        busy(z, "listen.tls", before)
        assert http(old) == 200
        assert is_open(old_tls)
    assert z.process
    z.process.send_signal(signal.SIGHUP)
    until("the new address is taken", lambda: http(new) == 200 and is_open(new_tls))
    until("the old one is closed", lambda: http(old) is None and not is_open(old_tls))


def test_listener_address_of_another_envoy_is_in_use(zenvoy: Start) -> None:
    """Envoys set SO_REUSEPORT: both would listen, and each would get a part of the connections."""
    first, second = zenvoy(WEB, defaults=SLOW_TO_SLEEP), zenvoy(WEB, defaults=SLOW_TO_SLEEP)
    before = write(second, WEB, listen={"http": f"{LOCAL}:{first.http_port}"})
    why = busy(second, "listen.http", before)
    assert f"it is used by process {first.pids()['envoy']}" in why
    assert f"(of the `zenvoy up` with the state directory {first.state_dir})" in why
    assert first.stop() == 0
    until("it listens there", lambda: http(second.http_port) == 200)


def test_listener_services_exchange_addresses(zenvoy: Start) -> None:
    """The addresses of our own Envoy are not busy."""
    one, two = free_port(), free_port()
    z = zenvoy(db(one, "one"), db(two, "two"), defaults=SLOW_TO_SLEEP)
    before = write(z, db(two, "one"), db(one, "two"))
    until("they are exchanged", lambda: (said(one), said(two)) == ("two x\n", "one x\n"))
    write(z, {**db(one, "two"), "listen": f"0.0.0.0:{one}"}, db(two, "one"))
    until("all addresses are listened on", lambda: said(one) == "two x\n")
    assert not [entry for entry in z.lines()[before:] if entry["event"] == "cannot listen"]


def test_listener_address_taken_in_restart_is_retried(zenvoy: Start) -> None:
    port = free_port()
    z = zenvoy(WEB, db(port), defaults=SLOW_TO_SLEEP)
    before, old = len(z.lines()), z.pids()["envoy"]
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with z.without("envoy"):
            until("the port is taken", lambda: bound(taken, port))
            taken.listen()
        busy(z, "db", before)
        until("the others are served", lambda: http(z.http_port) == 200)
    assert z.pids()["envoy"] != old
    until("it listens again", lambda: said(port) == "db x\n")


def bound(taken: socket.socket, port: int) -> bool:
    try:
        taken.bind((LOCAL, port))
    except OSError:
        return False
    return True


def test_option_ports_taken_in_restart_stop_nothing(zenvoy: Start) -> None:
    """Sleeping services still wake; the ports are served once they are free."""
    ports = {option: free_port() for option in ("--metrics", "--holder-metrics", "--grpc")}
    options = tuple(word for option, port in ports.items() for word in (option, f"{LOCAL}:{port}"))
    z = zenvoy(WEB, defaults=SLOW_TO_SLEEP, options=options)
    before, old = len(z.lines()), z.pids()
    with ExitStack() as stack:
        with z.without("reconciler", "holder"):
            for port in ports.values():
                taken = stack.enter_context(socket.socket())
                taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                until("the port is taken", partial(bound, taken, port))
                taken.listen()
        for option in ("--metrics", "--grpc"):
            assert f"it is used by process {os.getpid()}" in busy(z, option, before)
        assert http(z.http_port) == 200
    until("metrics are served", lambda: answers(ports["--metrics"]) and answers(ports["--holder-metrics"]))
    until("others may join", lambda: is_open(ports["--grpc"]))
    assert all(z.pids()[name] != old[name] for name in ("reconciler", "holder"))


def answers(port: int) -> bool:
    try:
        return request(port, LOCAL, "/metrics").status == 200
    except OSError:
        return False


def is_open(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex((LOCAL, port)) == 0
