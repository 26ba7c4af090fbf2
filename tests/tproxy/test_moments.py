"""Times that a holder gives to its peers, for which no pause of the machine is too long.

A complete holder without its process: real sockets, and a loop that runs only while a test waits for something. A round
of the loop handles the sockets that are ready before the timers that are due.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.tproxy.harness import PATIENCE_SECONDS, fail, go, is_reset, read_all, read_exactly
from tests.tproxy.test_refusal import GET, HTTP2, asks, frames
from tests.tproxy.test_scarcity import run_until
from tproxy import address
from tproxy.control.stream import Link
from tproxy.hold_queue import HoldQueue
from tproxy.holder import MAX_UNASSIGNED_ADDRESSES, Holder
from tproxy.io import refuser
from tproxy.io.descriptors import Budget
from tproxy.io.listener import Listener
from tproxy.io.loop import Loop
from tproxy.io.tcp import KEEPALIVE_SECONDS
from tproxy.protocols import http2
from tproxy.wire import Assignment, AssignmentUpdate, Hold, HolderHello, Verdict

HOST = "127.64.0.7"


class Inside:
    """A holder in the process of the test, and its clients."""

    def __init__(self) -> None:
        self.loop = Loop(fail)
        self.holder = Holder(self.loop, Budget(1_000), HolderHello("h", "anyip"), None, KEEPALIVE_SECONDS)
        self.listening = socket.create_server(("0.0.0.0", 0))
        self._opened = [self.listening]

    @property
    def port(self) -> int:
        return int(self.listening.getsockname()[1])

    def close(self) -> None:
        for hold_address in list(self.holder.addresses.values()):
            hold_address.refuse_all("draining")
        for opened in self._opened:
            opened.close()
        self.run_until(lambda: not (self.holder.held or self.holder.relayed or self.holder.refuser.lingering))
        self.loop.close()

    def run_until(self, holds: Callable[[], object]) -> None:
        run_until(self.loop, holds)

    def opened(self, one: socket.socket) -> socket.socket:
        one.settimeout(PATIENCE_SECONDS)
        self._opened.append(one)
        return one

    def client(self, host: str = HOST) -> socket.socket:
        """Return a client whose connection the holder has accepted, in no round of the loop."""
        client = self.opened(socket.create_connection((host, self.port)))
        accepted, _ = self.listening.accept()
        accepted.setblocking(False)
        self.holder.accept(accepted.detach())
        return client

    def upstream(self) -> socket.socket:
        return self.opened(socket.create_server(("127.0.0.1", 0)))

    def accept(self, upstream: socket.socket) -> socket.socket:
        return self.opened(upstream.accept()[0])

    def queue(self, host: str = HOST) -> HoldQueue | None:
        hold_address = self.holder.addresses.get(address.join(host, self.port))
        return hold_address.queue if hold_address else None

    def assign(
        self,
        verdict: Verdict | None = None,
        protocol: str = "tcp",
        max_held: int = 100,
        hold_timeout: float = 600.0,
        host: str = HOST,
    ) -> None:
        """Put an assignment in force, as the reconciler's first or next."""
        at = address.join(host, self.port)
        one = Assignment(at, f"at-{host}", protocol, verdict or Hold(), max_held, hold_timeout)
        link = Link(lambda: None)
        self.holder.received(link, AssignmentUpdate(1, (one,), full=not self.holder.is_informed))


@pytest.fixture
def inside() -> Iterator[Inside]:
    inside = Inside()
    yield inside
    inside.close()


def test_unassigned_address_holds_until_its_assignment(inside: Inside) -> None:
    """Envoy may learn of a new service before the holder does."""
    inside.assign()
    early = inside.client("127.64.0.9")
    early_queue = inside.queue("127.64.0.9")
    assert early_queue is not None and early_queue.held == 1
    upstream = inside.upstream()
    inside.assign(go(upstream), host="127.64.0.9")
    inside.run_until(lambda: early_queue.relayed)
    inside.accept(upstream).sendall(b"new")
    inside.run_until(lambda: early_queue.first_byte_at)
    assert read_exactly(early, 3) == b"new"


def test_unassigned_addresses_that_hold_are_limited(inside: Inside) -> None:
    inside.assign()
    waiting = [inside.client(f"127.64.1.{at}") for at in range(MAX_UNASSIGNED_ADDRESSES)]
    assert inside.holder.held == MAX_UNASSIGNED_ADDRESSES
    late = inside.client("127.64.2.1")
    assert inside.queue("127.64.2.1") is None, "it was held"
    assert inside.holder.refused == {"unassigned": 1}
    inside.run_until(lambda: not (inside.holder.held or inside.holder.refuser.lingering))
    assert is_reset(late) and all(is_reset(each) for each in waiting)
    again = inside.client("127.64.2.1")
    assert inside.holder.held == 1
    inside.run_until(lambda: not (inside.holder.held or inside.holder.refuser.lingering))
    assert is_reset(again)


@pytest.mark.parametrize("protocol", ["http", "auto"])
def test_refusal_before_the_request_is_sent_after_it(inside: Inside, protocol: str) -> None:
    inside.assign(protocol=protocol, max_held=0)
    client = inside.client()
    assert inside.holder.refuser.lingering == 1
    client.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.recv(1)
    client.settimeout(PATIENCE_SECONDS)
    client.sendall(GET)
    client.shutdown(socket.SHUT_WR)
    inside.run_until(lambda: not inside.holder.refuser.lingering)
    assert b"0 connections are already held (maxHeld)" in read_all(client)


@pytest.mark.curl
def test_refusal_during_an_upload_is_delivered(inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refuser, "LINGER_SECONDS", 600.0)
    inside.assign(protocol="http", hold_timeout=0.2)
    upload = tmp_path / "upload"
    upload.write_bytes(bytes(8 << 20))
    inside.listening.setblocking(False)
    listener = Listener(inside.loop, inside.listening, inside.holder.accept, inside.holder.count_shed)
    command = ["curl", "-sS", "-i", "-H", "Expect:", "--data-binary", f"@{upload}", f"http://{HOST}:{inside.port}/"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as curl:
        inside.run_until(lambda: curl.poll() is not None)
        said, _ = curl.communicate()
    listener.close()
    assert curl.returncode == 0
    assert said.startswith("HTTP/1.1 503 ")
    assert "did not start" in said


@HTTP2
def test_timeout_h2c_recent_request_may_be_repeated(inside: Inside, protocol: str) -> None:
    inside.assign(protocol=protocol)
    client = inside.client()
    queue = inside.queue()
    assert queue is not None
    held = queue.oldest()
    assert held is not None and held.requests is not None
    requests = held.requests
    first = http2.PREFACE + http2.frame(4, 0, 0) + asks(1, 3)
    client.sendall(first)
    held.since -= 1_000
    requests.update(first, time.monotonic() - 1_000)
    client.sendall(asks(5))
    inside.run_until(lambda: requests.last == 5)
    inside.assign(protocol=protocol, hold_timeout=500)
    inside.run_until(lambda: queue.refused)
    client.shutdown(socket.SHUT_WR)
    inside.run_until(lambda: not inside.holder.refuser.lingering)
    said = read_all(client)
    assert [stream for kind, stream in frames(said) if kind == http2.HEADERS] == [1, 3]
    assert said.endswith((3).to_bytes(4) + (0).to_bytes(4)), "GOAWAY names the last that was answered"
    assert (queue.held, queue.refused.total()) == (0, 1)
