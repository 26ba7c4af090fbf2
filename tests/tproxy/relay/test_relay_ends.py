"""Ends of relayed connections: half-close, reset, close. No byte is lost, and a cut never looks like an end."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct

import pytest

from tests.tproxy.relay.rig import MIB, PATIENCE_SECONDS, Rig, last_attempt, read, read_all, sending, tcp_pair
from tproxy.relay import relay

UP_AND_DOWN = pytest.mark.parametrize("up", [True, False], ids=["up", "down"])


def ends(rig: Rig, up: bool) -> tuple[socket.socket, socket.socket]:
    """Return the sending and the receiving outer end."""
    client, upstream, _ = rig.connect()
    return (client, upstream) if up else (upstream, client)


def reset(end: socket.socket) -> None:
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()


def wait_for_reset(end: socket.socket) -> None:
    """Wait for ECONNRESET, or for EPIPE, which a reset after an end causes."""
    poll = select.poll()
    poll.register(end, 0)
    assert poll.poll(1_000 * PATIENCE_SECONDS), "nothing happened"
    assert end.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in (errno.ECONNRESET, errno.EPIPE)


def fill(rig: Rig, end: socket.socket, data: bytes) -> None:
    """Send until no more bytes are accepted, whatever the relay does; the receiver does not read."""
    end.setblocking(False)
    sent = rounds_without_room = 0
    while rounds_without_room < 50:
        if select.select([], [end], [], 0.005)[1]:
            sent += end.send(memoryview(data)[sent:])
            rounds_without_room = 0
        else:
            rig.call(lambda: None)
            rounds_without_room += 1
    assert sent < len(data), "all of it was taken"


def read_until_reset(end: socket.socket) -> bytes:
    data = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while chunk := end.recv(MIB):
            data += chunk
        pytest.fail("it ended without a reset")
    return bytes(data)


@UP_AND_DOWN
@pytest.mark.parametrize("size", [0, 1, 70_000, 5 * MIB])
def test_half_close_keeps_the_other_direction_open(rig: Rig, up: bool, size: int) -> None:
    left, right = ends(rig, up)
    request, reply = os.urandom(size), os.urandom(size + 3)
    with sending(left, request, then_end=True):
        assert read_all(right) == request
    assert rig.done.empty()
    for _ in range(3):
        with sending(right, reply):
            assert read(left, len(reply)) == reply
    right.shutdown(socket.SHUT_WR)
    assert read_all(left) == b""
    rig.finished()


@UP_AND_DOWN
def test_end_behind_a_full_sink_follows_the_bytes(rig: Rig, up: bool) -> None:
    left, right = ends(rig, up)
    data = os.urandom(20 * MIB)
    with sending(left, data, then_end=True):
        right.shutdown(socket.SHUT_WR)
        assert read_all(left) == b""
        assert read_all(right) == data
    rig.finished()


@UP_AND_DOWN
def test_reset_becomes_a_reset(rig: Rig, up: bool) -> None:
    left, right = ends(rig, up)
    right.sendall(b"hello")
    assert read(left, 5) == b"hello"
    reset(left)
    wait_for_reset(right)
    rig.finished()


@UP_AND_DOWN
def test_reset_after_half_close_becomes_a_reset(rig: Rig, up: bool) -> None:
    left, right = ends(rig, up)
    left.sendall(b"all")
    left.shutdown(socket.SHUT_WR)
    assert read_all(right) == b"all"
    reset(left)
    wait_for_reset(right)
    rig.finished()


@UP_AND_DOWN
@pytest.mark.parametrize("size", [5, 5 * MIB])
def test_bytes_sent_before_a_reset_are_delivered(rig: Rig, up: bool, size: int) -> None:
    left, right = ends(rig, up)
    data = os.urandom(size)
    left.sendall(data[: size // 2])
    assert read(right, size // 2) == data[: size // 2]
    with sending(left, data[size // 2 :]):
        poll = select.poll()
        poll.register(right, select.POLLIN)
        assert poll.poll(1_000 * PATIENCE_SECONDS)
        rest = read(right, size - size // 2 - 1)
    reset(left)
    rest += read(right, 1)
    assert rest == data[size // 2 :]
    wait_for_reset(right)
    rig.finished()


def test_reset_behind_a_full_sink_waits_for_the_sink(rig: Rig) -> None:
    client, upstream, relayed = rig.connect()
    data = os.urandom(60 * MIB)
    fill(rig, client, data)
    taken = rig.call(lambda: relayed.bytes_up)
    reset(client)
    got = read_until_reset(upstream)
    assert len(got) > taken, "what was in the pipe is missing"
    assert got == data[: len(got)]
    assert rig.finished().bytes_up == len(got)


def test_reset_behind_a_blocked_sink_ends_after_the_grace(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "RESET_GRACE_SECONDS", 0.05)
    client, upstream, _ = rig.connect()
    fill(rig, client, bytes(60 * MIB))
    reset(client)
    wait_for_reset(upstream)
    rig.finished()


def test_write_to_a_closed_peer_resets_the_writer(rig: Rig) -> None:
    client, upstream, _ = rig.connect()
    upstream.close()
    assert read_all(client) == b""
    client.sendall(b"is it open?")
    wait_for_reset(client)
    rig.finished()


def test_response_before_a_reset_is_delivered(rig: Rig) -> None:
    """A server responds before it has read everything, and closes: its response arrives, and the upload is cut."""
    client, upstream, _ = rig.connect()
    client.sendall(b"x" * 100_000)
    read(upstream, 10)
    upstream.sendall(b"413 too large")
    assert read(client, 13) == b"413 too large"
    upstream.close()
    wait_for_reset(client)
    rig.finished()


@UP_AND_DOWN
def test_close_during_transfer_resets_and_frees_everything(rig: Rig, up: bool) -> None:
    client, upstream, relayed = rig.connect()
    left, right = (client, upstream) if up else (upstream, client)
    fill(rig, left, bytes(60 * MIB))
    rig.call(relayed.close)
    assert rig.finished() is relayed
    assert relayed.closed
    wait_for_reset(right)
    rig.call(relayed.close)
    assert rig.done.empty(), "done twice"


def test_close_of_an_idle_connection_is_an_end(rig: Rig) -> None:
    client, upstream, relayed = rig.connect()
    rig.call(relayed.close)
    assert read_all(client) == read_all(upstream) == b""


def test_close_with_reset_is_a_reset(rig: Rig) -> None:
    client, upstream, relayed = rig.connect()
    rig.call(lambda: relayed.close(reset=True))
    wait_for_reset(client)
    wait_for_reset(upstream)


@UP_AND_DOWN
def test_bytes_around_urgent_data_are_delivered(rig: Rig, up: bool) -> None:
    """A read stops at urgent data although there is more, so a short read does not mean an empty socket."""
    left, right = ends(rig, up)
    left.sendall(b"before")
    left.send(b"!", socket.MSG_OOB)
    left.sendall(b"after")
    assert read(right, 11) == b"beforeafter"
    left.sendall(b"later")
    assert read(right, 5) == b"later"


def test_start_with_a_reset_upstream_resets_the_client(rig: Rig) -> None:
    client, inner_client = tcp_pair()
    inner_upstream, upstream = tcp_pair()
    reset(upstream)
    for inner in (inner_client, inner_upstream):
        inner.setblocking(False)
    fds = inner_client.detach(), inner_upstream.detach()
    client.sendall(b"early")
    rig.call(lambda: rig.relay.start(*fds, rig, last_attempt()))
    wait_for_reset(client)
    client.close()
    rig.finished()
