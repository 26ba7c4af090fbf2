"""Connections when the kernel has no more epoll watches or descriptors."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from tests.tproxy.harness import PATIENCE_SECONDS, fail
from tproxy.control.stream import Link
from tproxy.dial.dialer import Dialer, DialLimiter
from tproxy.holder import Holder
from tproxy.io.descriptors import Budget
from tproxy.io.loop import Loop
from tproxy.io.tcp import KEEPALIVE_SECONDS
from tproxy.wire import Assignment, AssignmentUpdate, Go, Hold, HolderHello, Verdict


class ScarceLoop(Loop):
    """A loop with a limited number of epoll watches."""

    watches = 1_000

    def register(self, fd: int, mask: int, callback: Callable[[int], object]) -> None:
        if not self.watches:
            raise OSError(errno.ENOSPC, "no space left on device")
        self.watches -= 1
        super().register(fd, mask, callback)


@pytest.fixture
def loop() -> Iterator[ScarceLoop]:
    loop = ScarceLoop(fail)
    yield loop
    loop.close()


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def run_until(loop: Loop, holds: Callable[[], object]) -> None:
    """Run the loop until the condition holds."""
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


def holder(loop: Loop, server: socket.socket, protocol: str, verdict: Verdict) -> Holder:
    """Return a holder for connections to the server's own address."""
    holder = Holder(loop, Budget(1_000), HolderHello("h", "anyip"), None, KEEPALIVE_SECONDS)
    assignment = Assignment(name_of(server), "web", protocol, verdict, 10, 600.0)
    link = Link(lambda: None)
    holder.received(link, AssignmentUpdate(1, (assignment,), full=True))
    return holder


@pytest.mark.parametrize("protocol", ["http", "tcp"])
def test_no_epoll_watch_refuses_new_and_keeps_held(loop: ScarceLoop, server: socket.socket, protocol: str) -> None:
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
        subject.addresses[name_of(server)].refuse_all("draining")
        run_until(loop, lambda: not subject.refuser.lingering)
    assert (subject.held, subject.budget.used) == (0, used)


def test_no_epoll_watch_frees_the_dial(loop: ScarceLoop, server: socket.socket) -> None:
    """The endpoint does not answer at once, so the dial needs a watch."""
    subject = holder(loop, server, "tcp", Go(("192.0.2.1:9",)))
    used = subject.budget.used
    with socket.create_connection(server.getsockname()):
        loop.watches = 1
        subject.accept(server.accept()[0].detach())
        assert subject.held == 1
        assert subject.budget.used == used + 1
        subject.addresses[name_of(server)].refuse_all("draining")
        run_until(loop, lambda: not subject.refuser.lingering)


class Waiting:
    """An owner that waits for one connection."""

    def __init__(self) -> None:
        self.got: list[int] = []

    def dials_wanted(self) -> int:
        return 1 - len(self.got)

    def on_connected(self, fd: int) -> None:
        self.got.append(fd)


def test_dialer_without_descriptors_resumes_when_some_are_free(loop: ScarceLoop, server: socket.socket) -> None:
    budget, waiting = Budget(1_000), Waiting()
    budget.used = budget.limit
    dialer = Dialer(DialLimiter(loop, budget, KEEPALIVE_SECONDS), waiting, (name_of(server),))
    dialer.pump()
    assert not waiting.got
    budget.used -= 10  # as when those that wait for another service give up
    run_until(loop, lambda: waiting.got)
    socket.socket(fileno=waiting.got[0]).close()
