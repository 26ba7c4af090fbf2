"""The keeper gives the held connections of a killed holder to the next one, and delivers nothing twice."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.tproxy.harness import (
    PATIENCE_SECONDS,
    HolderProcess,
    World,
    eventually,
    go,
    is_refused,
    is_reset,
    read_exactly,
)


class Kept:
    """A keeper, and a sequence of holders that share one listening socket."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world, self.path = world, folder / "keeper.sock"
        self._listening = world.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1024))
        self.keeper = self.start_keeper()
        self.holder = self.start()

    def start_keeper(self) -> subprocess.Popen[bytes]:
        keeper = subprocess.Popen([sys.executable, "-m", "tproxy.keeper", str(self.path)])
        self.world.callback(keeper.wait)
        self.world.callback(keeper.kill)
        eventually(lambda: self._answers(), "the keeper listens")
        return keeper

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
            return probe.connect_ex(str(self.path)) == 0

    def start(self) -> HolderProcess:
        descriptor = self._listening.fileno()
        options = ("--listen", f"fd:{descriptor}", "--keeper", str(self.path))
        self.holder = self.world.start(*options, pass_fds=(descriptor,))
        self.holder.address = "{}:{}".format(*self._listening.getsockname())
        return self.holder

    def kill_holder(self) -> None:
        self.holder.end()

    def client(self) -> socket.socket:
        client = self.world.enter_context(socket.create_connection(self._listening.getsockname(), PATIENCE_SECONDS))
        client.settimeout(PATIENCE_SECONDS)
        return client

    @property
    def kept(self) -> int:
        """Number of held connections that the keeper has."""
        found = Path(f"/proc/{self.keeper.pid}/fd").iterdir()
        return sum(map(_is_socket, found)) - 2  # those that it listens on, and that it speaks to the holder over

    def keeps(self, number: int) -> None:
        eventually(lambda: self.kept == number, f"{number} are kept")


def _is_socket(descriptor: Path) -> bool:
    try:
        return str(descriptor.readlink()).startswith("socket:")
    except FileNotFoundError:  # closed meanwhile
        return False


@pytest.fixture
def kept(world: World, tmp_path: Path) -> Kept:
    return Kept(world, tmp_path)


def _asks(kept: Kept, number: int) -> list[socket.socket]:
    clients = [kept.client() for _ in range(number)]
    for at, client in enumerate(clients):
        client.sendall(f"client {at:03}\n".encode())
    return clients


def _all_answered_once(kept: Kept, clients: list[socket.socket]) -> None:
    upstream = kept.world.upstream()
    kept.world.assign(go(upstream))
    asked = []
    for _ in clients:
        server = kept.world.accept(upstream)
        line = read_exactly(server, 11)
        asked.append(line)
        server.sendall(line.upper())
    assert sorted(asked) == [f"client {at:03}\n".encode() for at in range(len(clients))]
    for at, client in enumerate(clients):
        assert read_exactly(client, 11) == f"CLIENT {at:03}\n".encode()


def test_held_connections_survive_a_killed_holder(kept: Kept) -> None:
    kept.world.assign()
    clients = _asks(kept, 150)
    kept.world.sees(held=150)
    kept.keeps(150)
    for _ in range(2):  # the next holder's successor too
        kept.kill_holder()
        kept.start()
        kept.world.sees(held=150)
    _all_answered_once(kept, clients)
    kept.keeps(0)


def test_time_held_counts_from_the_first_holder(kept: Kept) -> None:
    kept.world.assign()
    begin = time.time()
    kept.client()
    kept.world.sees(held=1)
    kept.keeps(1)
    end = time.time()
    kept.kill_holder()
    kept.world.reconciler.ups.clear()
    kept.start()
    since = kept.world.sees(held=1).held_since
    # The holder reads two clocks, one after the other, to report it.
    assert since is not None and begin - PATIENCE_SECONDS < since < end


def test_relayed_connection_ends_with_a_killed_holder(kept: Kept) -> None:
    """Bytes that a program may have received are never sent to it again."""
    upstream = kept.world.upstream()
    kept.world.assign(go(upstream))
    client = kept.client()
    client.sendall(b"POST")
    server = kept.world.accept(upstream)
    assert read_exactly(server, 4) == b"POST"
    kept.keeps(0)
    kept.kill_holder()
    assert is_reset(client) or client.recv(1) == b""
    kept.world.reconciler.ups.clear()
    kept.start()
    upstream.settimeout(0.3)
    with pytest.raises(TimeoutError):
        upstream.accept()


def test_connection_closes_at_once_where_the_holder_refuses(kept: Kept) -> None:
    kept.world.assign(max_held=1)
    kept.client()
    kept.world.sees(held=1)
    kept.keeps(1)
    assert is_refused(kept.client)
    with contextlib.suppress(ConnectionResetError):
        kept.client().close()
    kept.world.sees(held=1, refused=2)


def test_client_that_disconnects_is_not_kept(kept: Kept) -> None:
    kept.world.assign(protocol="http")
    client = kept.client()
    kept.world.sees(held=1)
    kept.keeps(1)
    client.close()
    kept.world.sees(held=0, gone=1)
    kept.keeps(0)


def test_killed_keeper_is_replaced_and_keeps_again(kept: Kept) -> None:
    kept.world.assign()
    clients = _asks(kept, 3)
    kept.world.sees(held=3)
    kept.keeps(3)
    kept.keeper.kill()
    kept.keeper.wait()
    kept.keeper = kept.start_keeper()
    kept.keeps(3)
    kept.kill_holder()
    kept.start()
    kept.world.sees(held=3)
    _all_answered_once(kept, clients)


def test_stopped_keeper_is_killed_and_delays_no_client(kept: Kept) -> None:
    kept.world.assign()
    kept.keeper.send_signal(signal.SIGSTOP)
    clients = _asks(kept, 20)
    _all_answered_once(kept, clients)
    assert kept.keeper.wait(PATIENCE_SECONDS) == -signal.SIGKILL


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tproxy.keeper", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)


def test_keeper_help_is_shown() -> None:
    helped = _run("--help")
    assert (helped.returncode, helped.stderr) == (0, "")
    assert "usage: zenvoy-keeper PATH" in helped.stdout
    assert "the Unix socket to listen on" in helped.stdout


@pytest.mark.parametrize("arguments", [(), ("--path",), ("a.sock", "b.sock")])
def test_keeper_with_wrong_arguments_says_its_usage(arguments: tuple[str, ...]) -> None:
    refused = _run(*arguments)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == "usage: zenvoy-keeper PATH (the Unix socket to listen on)\n"
