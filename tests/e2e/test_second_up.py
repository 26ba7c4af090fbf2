"""Ports in use: `up` reports each with its owner and starts nothing. Other conflicts are in the tests of faults."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack

from tests.e2e.conftest import Start
from tests.e2e.harness import LOCAL, SLOW_TO_SLEEP, Zenvoy, quick, request, until
from tests.ports import free_port


def test_up_ports_in_use_are_reported_with_owner(zenvoy: Start) -> None:
    ours = {option: f"{LOCAL}:{free_port()}" for option in ("--metrics", "--holder-metrics", "--grpc")}
    z = zenvoy(
        {"name": "web", "command": quick("http")},
        {"name": "db", "protocol": "tcp", "command": quick("tcp")},
        start=False,
        options=tuple(word for pair in ours.items() for word in pair),
    )
    addresses = [*ours.values(), f"{LOCAL}:{z.http_port}", f"{LOCAL}:{z.port('db')}"]
    with ExitStack() as stack:
        for address in addresses:
            host, _, port = address.rpartition(":")
            stack.enter_context(socket.create_server((host, int(port))))
        assert refused(z) == 1
        text = z.log_path.read_text()
        first, *lines = text.splitlines()
        assert first == "zenvoy: cannot listen:"
        mine = f"; it is used by process {os.getpid()}: "
        for line, address in zip(lines, addresses, strict=True):
            assert line.startswith(f"  {address}: Address already in use{mine}")
        assert not z.leftovers() and not list((z.state_dir / "logs").iterdir())
    z.start()
    assert request(z.http_port, "web").body == b"web /\n"


def test_up_equal_addresses_report_both_options(zenvoy: Start) -> None:
    port = free_port()
    asked = ("--metrics", f"{LOCAL}:{port}", "--holder-metrics", f"[::]:{port}")
    z = zenvoy({"name": "web", "command": quick("http")}, start=False, options=asked)
    assert refused(z) == 1
    assert z.log_path.read_text().splitlines() == [
        "zenvoy: cannot listen:",
        f"  {LOCAL}:{port}: used by both --metrics and --holder-metrics",
    ]
    assert not z.state_dir.exists()


def test_up_option_address_in_file_is_a_problem(zenvoy: Start) -> None:
    http, db, fixed = free_port(), free_port(), free_port()
    z = zenvoy(
        {"name": "web", "command": ["true"], "port": fixed},
        {"name": "db", "protocol": "tcp", "listen": f"{LOCAL}:{db}", "command": quick("tcp")},
        start=False,
        listen={"http": f"0.0.0.0:{http}"},
        options=("--metrics", f"{LOCAL}:{http}", "--holder-metrics", f"[::]:{db}", "--grpc", f"{LOCAL}:{fixed}"),
    )
    assert refused(z) == 2
    *mistakes, last = z.log_path.read_text().splitlines()
    for mistake, words in zip(
        mistakes,
        (
            f": listen.http: 0.0.0.0:{http} is already used by --metrics; choose another port",
            f": services[0].port: {fixed} is already used by --grpc; choose another, or remove it to use a free port",
            f": services[1].listen: {LOCAL}:{db} is already used by --holder-metrics; choose another port",
        ),
        strict=True,
    ):
        assert mistake.startswith(f"{z.file}:")
        assert mistake.endswith(words)
    assert last == f"{z.file}: 3 mistakes"
    assert not z.state_dir.exists()


def test_up_started_twice_reports_the_first(zenvoy: Start) -> None:
    """The second one fails at the state directory; the running one is not affected."""
    first = zenvoy({"name": "web", "command": quick("http")}, defaults=SLOW_TO_SLEEP)
    first.wake("web")
    pids, services = first.pids(), first.service_pids("web")
    second = Zenvoy(first.directory, first.config)
    second.log_path = first.directory / "second.log"
    assert refused(second) == 1
    (line,) = second.log_path.read_text().splitlines()
    assert line.startswith(f"zenvoy: the state directory {first.state_dir} is used by process {pids['up']}; ")
    assert (first.pids(), first.service_pids("web")) == (pids, services)
    assert request(first.http_port, "web").body == b"web /\n"
    first.sleep("web")
    assert first.cli("status").returncode == 0
    assert first.stop() == 0
    second.start()
    assert request(second.http_port, "web").body == b"web /\n"
    assert second.stop() == 0


def refused(z: Zenvoy) -> int:
    """Return the exit code of an `up` that does not get to serve."""
    z.start(wait=False)
    process = z.process
    assert process
    until("`up` ends", lambda: process.poll() is not None)
    return process.returncode
