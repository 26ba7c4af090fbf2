"""Sockets that listen, read from the kernel, and the diagnosis that follows from them."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from reconciler.local.processes.probes import Unreadiness, unreadiness
from reconciler.local.processes.program import Program
from reconciler.local.sockets import ListeningSocket, command_of, listeners, sockets_of


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_sockets_of_process_have_their_address(family: socket.AddressFamily, host: str) -> None:
    with socket.create_server((host, 0), family=family) as server:
        port = server.getsockname()[1]
        assert (host, port) in [(one.host, one.port) for one in sockets_of([os.getpid()])[0]]
        assert os.getpid() in listeners(port)
        assert (command_of(port) or "").startswith(f"process {os.getpid()}: ")


def test_other_sockets_of_process_are_unix_and_udp(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, socket.socket(type=socket.SOCK_DGRAM) as udp:
        server.bind(str(tmp_path / "s p"))
        assert not any("s p" in name for name in sockets_of([os.getpid()])[1])
        server.listen()
        udp.bind(("127.0.0.1", 0))
        _, found = sockets_of([os.getpid()])
        assert f"the Unix socket {tmp_path}/s p" in found
        assert f"UDP 127.0.0.1:{udp.getsockname()[1]}" in found
    program = Program(command=("serve",), working_directory=Path("/"))
    seen = unreadiness(20000, program, False, Unreadiness(), [], ["the Unix socket /run/app.sock"])
    assert seen.message == "nothing listens on 127.0.0.1:20000 yet; it listens on the Unix socket /run/app.sock"


@pytest.mark.parametrize(
    ("is_accepted", "fixed", "probe", "sockets", "part", "lasts"),
    [
        (False, None, Unreadiness(), [], "nothing listens on 127.0.0.1:20000 yet", False),
        (False, None, Unreadiness(), [("::1", 20000)], "it listens on [::1]:20000 and not on 127.0.0.1:20000", True),
        (
            False,
            None,
            Unreadiness(),
            [("0.0.0.0", 80)],
            'it listens on 0.0.0.0:80 and not on port 20000; pass it "',
            True,
        ),
        (False, 20000, Unreadiness(), [("0.0.0.0", 80)], "set port: 80", True),
        (True, None, Unreadiness("GET / is answered with 503"), [("127.0.0.1", 20000)], "answered with 503", False),
        (True, None, Unreadiness("GET / is answered with 404", True), [("127.0.0.1", 20000)], "with 404", True),
    ],
)
def test_unreadiness_names_the_evidence(
    is_accepted: bool, fixed: int | None, probe: Unreadiness, sockets: list[tuple[str, int]], part: str, lasts: bool
) -> None:
    program = Program(command=("serve",), working_directory=Path("/"), port=fixed)
    seen = [ListeningSocket(host, port, "1") for host, port in sockets]
    found = unreadiness(20000, program, is_accepted, probe, seen)
    assert part in found.message
    assert found.lasts is lasts
