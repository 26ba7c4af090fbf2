"""How relayed connections end: half-close, reset, close. Nothing read is lost, and a cut never looks like an end."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct

import pytest

from tests.tproxy.relay.rig import MIB, Rig, read, read_all, sending, tcp_pair
from tproxy.relay import relay

UP_AND_DOWN = pytest.mark.parametrize("up", [True, False], ids=["up", "down"])


def ends(rig: Rig, up: bool) -> tuple[socket.socket, socket.socket]:
    """The two outer ends, in the direction of interest: what sends, what receives."""
    client, upstream, _ = rig.connect()
    return (client, upstream) if up else (upstream, client)


def reset(end: socket.socket) -> None:
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()


def wait_for_reset(end: socket.socket) -> None:
    """EPIPE is what a reset is called behind an end."""
    poll = select.poll()
    poll.register(end, 0)
    assert poll.poll(20_000), "nothing happened"
    assert end.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in (errno.ECONNRESET, errno.EPIPE)


def fill(end: socket.socket, data: bytes) -> None:
    """Send until nothing more is taken; the receiver does not read."""
    end.settimeout(0.2)
    with contextlib.suppress(TimeoutError):
        end.sendall(data)
        pytest.fail("all of it was taken")


def read_until_reset(end: socket.socket) -> bytes:
    data = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while chunk := end.recv(MIB):
            data += chunk
        pytest.fail("it ended without a reset")
    return bytes(data)


@UP_AND_DOWN
@pytest.mark.parametrize("size", [0, 1, 70_000, 5 * MIB])
def test_after_a_half_close_the_other_way_stays_open(rig: Rig, up: bool, size: int) -> None:
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
def test_an_end_behind_a_full_sink_is_passed_on_after_the_bytes(rig: Rig, up: bool) -> None:
    left, right = ends(rig, up)
    data = os.urandom(20 * MIB)
    with sending(left, data, then_end=True):
        right.shutdown(socket.SHUT_WR)
        assert read_all(left) == b""
        assert read_all(right) == data
    rig.finished()


@UP_AND_DOWN
def test_a_reset_becomes_a_reset(rig: Rig, up: bool) -> None:
    left, right = ends(rig, up)
    right.sendall(b"hello")
    assert read(left, 5) == b"hello"
    reset(left)
    wait_for_reset(right)
    rig.finished()


@UP_AND_DOWN
def test_a_reset_after_a_half_close_becomes_a_reset(rig: Rig, up: bool) -> None:
    left, right = ends(rig, up)
    left.sendall(b"all")
    left.shutdown(socket.SHUT_WR)
    assert read_all(right) == b"all"
    reset(left)
    wait_for_reset(right)
    rig.finished()


@UP_AND_DOWN
@pytest.mark.parametrize("size", [5, 5 * MIB])
def test_what_was_sent_before_a_reset_is_delivered(rig: Rig, up: bool, size: int) -> None:
    left, right = ends(rig, up)
    data = os.urandom(size)
    left.sendall(data[: size // 2])
    assert read(right, size // 2) == data[: size // 2]
    with sending(left, data[size // 2 :]):
        poll = select.poll()
        poll.register(right, select.POLLIN)
        assert poll.poll(20_000)
        rest = read(right, size - size // 2 - 1)
    reset(left)
    rest += read(right, 1)
    assert rest == data[size // 2 :]
    wait_for_reset(right)
    rig.finished()


def test_a_reset_behind_a_full_sink_waits_for_the_sink(rig: Rig) -> None:
    client, upstream, relayed = rig.connect()
    data = os.urandom(60 * MIB)
    fill(client, data)
    taken = rig.call(lambda: relayed.bytes_up)
    reset(client)
    got = read_until_reset(upstream)
    assert len(got) > taken, "what was in the pipe is missing"
    assert got == data[: len(got)]
    assert rig.finished().bytes_up == len(got)


def test_a_reset_behind_a_sink_that_never_reads_does_not_wait_for_ever(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "RESET_GRACE_SECONDS", 0.05)
    client, upstream, _ = rig.connect()
    fill(client, bytes(60 * MIB))
    reset(client)
    wait_for_reset(upstream)
    rig.finished()


def test_writing_to_one_that_is_gone_resets_who_writes(rig: Rig) -> None:
    client, upstream, _ = rig.connect()
    upstream.close()
    assert read_all(client) == b""
    client.sendall(b"anybody there?")
    wait_for_reset(client)
    rig.finished()


def test_the_last_words_of_one_that_resets_are_heard(rig: Rig) -> None:
    """A server that answers before it has read everything, and closes: its answer arrives, the upload is cut."""
    client, upstream, _ = rig.connect()
    client.sendall(b"x" * 100_000)
    read(upstream, 10)
    upstream.sendall(b"413 too large")
    assert read(client, 13) == b"413 too large"
    upstream.close()
    wait_for_reset(client)
    rig.finished()


@UP_AND_DOWN
def test_close_in_the_middle_gives_everything_back_and_is_seen_as_a_cut(rig: Rig, up: bool) -> None:
    client, upstream, relayed = rig.connect()
    left, right = (client, upstream) if up else (upstream, client)
    fill(left, bytes(60 * MIB))
    rig.call(relayed.close)
    assert rig.finished() is relayed
    assert relayed.closed
    wait_for_reset(right)
    rig.call(relayed.close)
    assert rig.done.empty(), "done twice"


def test_close_of_a_silent_connection_is_an_end(rig: Rig) -> None:
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
    """A read stops at urgent data although there is more: an edge must not be taken for the last one."""
    left, right = ends(rig, up)
    left.sendall(b"before")
    left.send(b"!", socket.MSG_OOB)
    left.sendall(b"after")
    assert read(right, 11) == b"beforeafter"
    left.sendall(b"later")
    assert read(right, 5) == b"later"


def test_upstream_that_was_gone_before_the_start(rig: Rig) -> None:
    client, inner_client = tcp_pair()
    inner_upstream, upstream = tcp_pair()
    reset(upstream)
    for inner in (inner_client, inner_upstream):
        inner.setblocking(False)
    fds = inner_client.detach(), inner_upstream.detach()
    client.sendall(b"early")
    rig.call(lambda: rig.relay.start(*fds, rig))
    wait_for_reset(client)
    client.close()
    rig.finished()
