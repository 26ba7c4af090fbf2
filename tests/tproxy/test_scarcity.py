"""What becomes of connections when the kernel has no more to give: watches, threads, descriptors, answers."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.tproxy.harness import PATIENCE_SECONDS, eventually
from tproxy.control.reporter import Link
from tproxy.control.stream import Stream
from tproxy.dial.dialer import Crowd, Dialer
from tproxy.holder import Holder
from tproxy.io.descriptors import Budget
from tproxy.io.loop import Loop
from tproxy.redirect import netfilter
from tproxy.wire import Assignment, Down, Go, Hello, Hold, Up, Verdict


class ScarceLoop(Loop):
    """A loop whose kernel has so many watches left."""

    watches = 1_000

    def register(self, fd: int, mask: int, callback: Callable[[int], object]) -> None:
        if not self.watches:
            raise OSError(errno.ENOSPC, "no space left on device")
        self.watches -= 1
        super().register(fd, mask, callback)


@pytest.fixture
def loop() -> Iterator[ScarceLoop]:
    loop = ScarceLoop()
    yield loop
    loop.close()


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def run_until(loop: Loop, holds: Callable[[], object]) -> None:
    """Run the loop until it holds."""
    deadline = time.monotonic() + PATIENCE_SECONDS

    def look() -> None:
        if holds() or time.monotonic() > deadline:
            loop.stop()
        else:
            loop.call_later(0.005, look)

    look_again = loop.call_later(0, look)
    loop.run()
    look_again.cancel()
    assert holds(), "it did not come to that"


def name_of(server: socket.socket) -> str:
    return "{}:{}".format(*server.getsockname())


class Silent:
    """A link that leads nowhere."""

    def send(self, message: Up) -> None: ...


def holder(loop: Loop, server: socket.socket, protocol: str, verdict: Verdict) -> Holder:
    """One that holds connections to the server's own address."""
    holder = Holder(loop, Budget(1_000), socket.AF_INET, Hello("h", "anyip"))
    assignment = Assignment(name_of(server), "web", protocol, verdict, 10, 5.0)
    link: Link = Silent()
    holder.received(link, Down(1, (assignment,), full=True))
    return holder


@pytest.mark.parametrize("protocol", ["http", "tcp"])
def test_without_a_watch_a_connection_is_refused_and_those_that_wait_go_on(
    loop: ScarceLoop, server: socket.socket, protocol: str
) -> None:
    subject = holder(loop, server, protocol, Hold())
    used = subject.budget.used
    with socket.create_connection(server.getsockname()), socket.create_connection(server.getsockname()) as two:
        subject.accept(server.accept()[0].detach())
        loop.watches = 0
        subject.accept(server.accept()[0].detach())
        assert subject.held == 1
        run_until(loop, lambda: not subject.refuser.lingering)
        assert subject.budget.used == used + 1
        with pytest.raises(ConnectionResetError):
            two.recv(1)
        loop.watches = 10
        subject.gates[name_of(server)].refuse_all("draining")
        run_until(loop, lambda: not subject.refuser.lingering)
    assert (subject.held, subject.budget.used) == (0, used)


def test_without_a_watch_a_dial_is_given_back(loop: ScarceLoop, server: socket.socket) -> None:
    """To an address that does not answer at once, so that the dial has to be watched."""
    subject = holder(loop, server, "tcp", Go(("192.0.2.1:9",)))
    used = subject.budget.used
    with socket.create_connection(server.getsockname()):
        loop.watches = 1
        subject.accept(server.accept()[0].detach())
        assert subject.held == 1
        assert subject.budget.used == used + 1
        subject.gates[name_of(server)].refuse_all("draining")
        run_until(loop, lambda: not subject.refuser.lingering)


class Waiting:
    """Somebody who waits for one connection."""

    def __init__(self) -> None:
        self.got: list[int] = []

    def wanted(self) -> int:
        return 1 - len(self.got)

    def connected(self, fd: int) -> None:
        self.got.append(fd)


def test_descriptors_are_found_wherever_they_become_free(loop: ScarceLoop, server: socket.socket) -> None:
    budget, waiting = Budget(1_000), Waiting()
    budget.used = budget.limit
    dialer = Dialer(loop, budget, Crowd(loop), waiting, (name_of(server),))
    dialer.pump()
    assert not waiting.got
    budget.used -= 10  # as when those that wait for another service give up
    run_until(loop, lambda: waiting.got)
    socket.socket(fileno=waiting.got[0]).close()


class Receiver:
    """Notes what a stream tells."""

    def __init__(self) -> None:
        self.ends: list[str] = []

    def opened(self, link: Link) -> None: ...

    def received(self, link: Link, down: Down) -> None: ...

    def closed(self, link: Link, why: str) -> None:
        self.ends.append(why)


class FaultyLoop(Loop):
    """A loop that cannot be called, the first time."""

    fails = True

    def call_soon_threadsafe(self, fn: Callable[[], object]) -> None:
        if self.fails:
            self.fails = False
            raise RuntimeError("can't start new thread")
        fn()


def test_a_stream_that_fails_in_an_unforeseen_way_is_tried_again() -> None:
    loop, receiver = FaultyLoop(), Receiver()
    stream = Stream("127.0.0.1:9", loop, receiver)
    stream.start()
    eventually(lambda: len(receiver.ends) >= 2, "another attempt")
    stream.close()
    loop.close()
    assert "can't start new thread" in receiver.ends[0]
    assert "UNAVAILABLE" in receiver.ends[1]


def test_a_tool_that_does_not_answer_is_an_error_with_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it is only asked what there is, as at the end, which must not fail for it."""
    tool = tmp_path / "nft"
    tool.write_text("#!/bin/sh\nexec sleep 1000\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(netfilter, "_SECONDS", 0.2)
    with pytest.raises(netfilter.CannotInstall, match="nft"):
        netfilter.remove(18001)
