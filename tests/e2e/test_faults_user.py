"""zenvoy as an ordinary user, who may only read this project's files, wherever root keeps them."""

from __future__ import annotations

import os
import pwd
import socket
from pathlib import Path

import psutil

from tests.e2e.conftest import Start
from tests.e2e.harness import LOCAL, QUICK, quick, request, until

READS = "-all,+dac_read_search"
STAYS = {**QUICK, "idleAfter": "1s"}


def test_up_as_ordinary_user_works(zenvoy: Start, tmp_path: Path) -> None:
    user = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    prefix: tuple[str, ...] = ()
    if os.geteuid() == 0:
        who = (f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--no-new-privs")
        caps = (f"--inh-caps={READS}", f"--ambient-caps={READS}", f"--bounding-set={READS}")
        prefix = ("setpriv", *who, *caps, "--securebits=+no_setuid_fixup")  # for access(2), too
    home = tmp_path / "home"
    home.mkdir()
    z = zenvoy(
        {"name": "web", "command": quick("http")},
        {"name": "db", "protocol": "tcp", "command": quick("tcp")},
        defaults=STAYS,
        start=False,
        prefix=prefix,
        environment={"HOME": str(home)},
    )
    for path in (home, z.directory, z.file):
        os.chown(path, user.pw_uid, user.pw_gid)
    z.start()
    with z.kept_awake("web"), z.kept_awake("db"):
        assert request(z.http_port, "web").body == b"web /\n"
        with socket.create_connection((LOCAL, z.port("db"))) as client:
            client.sendall(b"x\n")
            assert client.recv(100) == b"db x\n"
        family = [psutil.Process(pid) for pid in (*z.pids().values(), *z.service_pids("web"), *z.service_pids("db"))]
        assert len(family) == 7
        assert {process.uids().effective for process in family} == {user.pw_uid}
    for name in ("web", "db"):
        z.wait_state(name, "ScaledToZero")
    assert request(z.http_port, "web").body == b"web /\n"
    before = len(z.states("db"))
    assert z.cli("wake", "db").returncode == 0
    assert "Active" in z.states("db")[before:]
    for name in ("reconciler", "holder", "envoy"):
        z.kill(name)
    z.wait_status("all recover", "web", lambda view: view["state"] == "ScaledToZero")
    until("Envoy listens again", lambda: answers(z.http_port))
    assert request(z.http_port, "web").body == b"web /\n"
    assert z.stop() == 0
    assert not z.leftovers()
    assert not list(home.iterdir())


def answers(port: int) -> bool:
    """Return whether the port accepts connections."""
    with socket.socket() as probe:
        return probe.connect_ex((LOCAL, port)) == 0
