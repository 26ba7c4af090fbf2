"""Resources of the relay: descriptors, memory, pipes, and turns."""

from __future__ import annotations

import concurrent.futures
import contextlib
import gc
import os
import resource
import socket
import threading

import pytest

from tests.tproxy.harness import eventually
from tests.tproxy.relay.rig import MIB, Rig, last_attempt, open_descriptors, read, read_all, sending, tcp_pair
from tproxy.relay import flow, pipes
from tproxy.relay.relay import RelayedConnection


def test_relay_300_connections_deliver_and_end(rig: Rig) -> None:
    connections = [rig.connect() for _ in range(300)]
    for i, (client, upstream, _) in enumerate(connections):
        client.sendall(b"%06d" % i)
        upstream.sendall(b"%07d" % i)
    for i, (client, upstream, _) in enumerate(connections):
        assert read(upstream, 6) == b"%06d" % i
        assert read(client, 7) == b"%07d" % i
    assert rig.call(lambda: len(rig.relay.connections)) == 300
    for client, upstream, _ in connections:
        client.close()
        assert read_all(upstream) == b""
        upstream.close()
        rig.finished()
    assert len(rig.relay.connections) == 0


def test_idle_connection_uses_two_descriptors_and_800_bytes(rig: Rig) -> None:
    client, upstream, relayed = rig.connect()
    before = open_descriptors()
    with sending(client, bytes(8 * MIB)):
        read(upstream, 8 * MIB)
    rig.call(lambda: None)
    assert open_descriptors() <= before + 2, "more than one pipe is kept"
    with_pipe = open_descriptors()
    for _ in range(20):
        rig.connect()
    assert open_descriptors() == with_pipe + 20 * 4, "two of these four are the test's"
    parts = [relayed, relayed._up, relayed._down, relayed._up.on_events, relayed._down.on_events]
    assert sum(part.__sizeof__() + 16 for part in parts) < 800


def relayed_connections() -> list[RelayedConnection]:
    gc.collect()
    return [thing for thing in gc.get_objects() if isinstance(thing, RelayedConnection)]


def no_pipes(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    if how == "too small":
        monkeypatch.setattr(pipes, "SIZES", (4096,))
    elif how == "lent":
        monkeypatch.setattr(pipes, "MAX_LENT", 0)


@pytest.mark.parametrize("how", ["too small", "lent", "EMFILE"])
def test_bulk_without_pipes_is_copied(rig: Rig, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    no_pipes(monkeypatch, how)
    client, upstream, relayed = rig.connect()
    data = os.urandom(20 * MIB)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if how == "EMFILE":
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, hard))
        spare = []
        with contextlib.suppress(OSError):
            while True:
                spare.append(os.dup(0))
    try:
        with sending(client, data, then_end=True):
            assert read_all(upstream) == data
    finally:
        if how == "EMFILE":
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for fd in spare:
                os.close(fd)
    assert rig.call(lambda: rig.relay.pipes._idle) == []
    assert rig.call(lambda: relayed.bytes_up) == len(data)


def test_busy_connection_does_not_starve_others(rig: Rig) -> None:
    busy, busy_upstream, relayed = rig.connect()
    chatty, chatty_upstream, _ = rig.connect()
    done = threading.Event()

    def send() -> int:
        sent = 0
        while not done.is_set():
            busy.sendall(bytes(MIB))
            sent += MIB
        busy.shutdown(socket.SHUT_WR)
        return sent

    with concurrent.futures.ThreadPoolExecutor() as pool:
        sent = pool.submit(send)
        received = pool.submit(lambda: sum(iter(lambda: len(busy_upstream.recv(MIB)), 0)))
        answered = 0
        try:
            while answered <= 10 or relayed.bytes_up < 100 * flow.SPLICE_SHARE:
                chatty.sendall(b"ping")
                assert read(chatty_upstream, 4) == b"ping"
                answered += 1
        finally:
            done.set()
        assert received.result() == sent.result()


def test_start_that_fails_closes_both_descriptors(rig: Rig) -> None:
    outer, inner = tcp_pair()
    outer.close()
    fd = inner.detach()
    dead = os.open("/dev/null", os.O_RDONLY)
    with pytest.raises(OSError, match=r"Socket operation on non-socket|not permitted"):
        rig.call(lambda: rig.relay.start(fd, dead, rig, last_attempt()))
    for gone in (fd, dead):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(gone)


def test_thousand_connections_in_turn_leave_nothing(rig: Rig) -> None:
    before = open_descriptors()
    for i in range(1000):
        client, upstream, _ = rig.connect()
        client.sendall(b"x")
        if i % 3 == 0:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        client.close()
        upstream.close()
        rig.finished()
    assert open_descriptors() == before
    eventually(lambda: len(relayed_connections()) <= 1, "only the last one, which `_` refers to, is left")
