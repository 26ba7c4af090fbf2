"""Attempts: an endpoint that ends a connection without an answer leaves the client and its bytes for the next one."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.tproxy.harness import eventually, read_exactly, reset
from tests.tproxy.relay.rig import PATIENCE_SECONDS, Rig, read_all, tcp_pair
from tproxy.relay.relay import REPLAY_BYTES, SENT_SECONDS, Attempt, may_repeat


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ({"is_reset": True, "has_sent": False}, True),
        ({"is_reset": False, "has_sent": False}, True),
        ({"is_reset": True, "has_sent": False, "client_ended": True}, False),
        ({"is_reset": True, "has_sent": True}, True),
        ({"is_reset": True, "has_sent": True, "client_ended": True}, True),
        ({"is_reset": False, "has_sent": True}, False),
        ({"is_reset": True, "has_sent": True, "seconds": SENT_SECONDS}, False),
        ({"is_reset": True, "has_sent": False, "seconds": 10 * SENT_SECONDS}, True),
    ],
)
def test_may_repeat_repeats_what_no_program_has_read(case: dict[str, Any], expected: bool) -> None:
    defaults: dict[str, Any] = {"client_ended": False, "seconds": 0.05}
    assert may_repeat(**{**defaults, **case}) is expected


class Trial:
    """A client of a rig, and the attempts to relay it to one endpoint after another."""

    def __init__(self, rig: Rig, receive_buffer: int | None = None) -> None:
        self.rig = rig
        self.client, inner = tcp_pair(receive_buffer)
        rig.ends.append(self.client)
        inner.setblocking(False)
        self._fd = inner.detach()
        self.returned: list[int] = []

    def attempt(self, skip: int = 0, seconds: float = 60.0, receive_buffer: int | None = None) -> socket.socket:
        """Relay the client to a new endpoint and return that endpoint's socket."""
        inner, endpoint = tcp_pair(receive_buffer)
        self.rig.ends.append(endpoint)
        inner.setblocking(False)
        attempt = Attempt(skip, time.monotonic() + seconds, lambda _, fd: self.returned.append(fd))
        fds = self._fd, inner.detach()
        self.rig.call(lambda: self.rig.relay.start(*fds, self.rig, attempt))
        return endpoint

    def is_lost(self) -> None:
        """Wait until the client was returned, which makes another attempt possible."""
        eventually(lambda: self.returned, "the client is returned")
        self._fd = self.returned.pop()


@pytest.fixture
def trial(rig: Rig) -> Trial:
    return Trial(rig)


@pytest.mark.parametrize("end", [reset, socket.socket.close])
def test_silent_client_is_returned_after_any_end(trial: Trial, end: Callable[[socket.socket], None]) -> None:
    end(trial.attempt())
    trial.is_lost()
    trial.attempt().sendall(b"220 ready")
    assert trial.client.recv(100) == b"220 ready"
    assert trial.rig.finished_after(trial.client.close).bytes_down == 9


def test_bytes_before_a_reset_are_sent_to_the_next_endpoint(trial: Trial) -> None:
    trial.client.sendall(b"header" + b"question")
    first = trial.attempt(skip=6)
    assert read_exactly(first, 8) == b"question"
    reset(first)
    trial.is_lost()
    second = trial.attempt(skip=6)
    assert read_exactly(second, 8) == b"question"
    second.sendall(b"answer")
    assert read_exactly(trial.client, 6) == b"answer"
    trial.client.sendall(b"more")
    assert read_exactly(second, 4) == b"more"
    relayed = trial.rig.finished_after(lambda: (trial.client.close(), second.close()))
    assert (relayed.bytes_up, relayed.bytes_down) == (12, 6)


def test_end_of_a_client_is_repeated_with_its_bytes(trial: Trial) -> None:
    trial.client.sendall(b"question")
    trial.client.shutdown(socket.SHUT_WR)
    reset(trial.attempt())
    trial.is_lost()
    second = trial.attempt()
    assert second.recv(100) + second.recv(100) == b"question"
    second.sendall(b"answer")
    second.close()
    assert trial.client.recv(100) + trial.client.recv(100) == b"answer"


def test_endpoint_that_read_all_bytes_and_ended_is_passed_on(trial: Trial) -> None:
    trial.client.sendall(b"a log line")
    endpoint = trial.attempt()
    assert read_exactly(endpoint, 10) == b"a log line"
    endpoint.close()
    assert trial.client.recv(100) == b""
    assert not trial.returned


def test_answered_connection_passes_a_reset_on(trial: Trial) -> None:
    endpoint = trial.attempt()
    endpoint.sendall(b"hello")
    assert trial.client.recv(100) == b"hello"
    reset(endpoint)
    with pytest.raises(ConnectionResetError):
        trial.client.recv(100)
    assert not trial.returned


def test_end_after_the_deadline_is_passed_on(trial: Trial) -> None:
    trial.attempt(seconds=-1.0).close()
    assert trial.client.recv(100) == b""
    assert not trial.returned


@pytest.mark.parametrize("receive_buffer", [None, 1 << 15])
def test_more_bytes_than_can_be_repeated_are_all_delivered(rig: Rig, receive_buffer: int | None) -> None:
    trial = Trial(rig, receive_buffer)
    sent = os.urandom(4 * REPLAY_BYTES)
    endpoint = trial.attempt()
    trial.client.setblocking(False)
    at = 0
    received = b""
    while len(received) < len(sent):
        try:
            at += trial.client.send(sent[at:])
        except BlockingIOError:
            pass
        if at > len(received):
            received += endpoint.recv(1 << 16)
    assert received == sent
    reset(endpoint)
    trial.client.settimeout(PATIENCE_SECONDS)
    with pytest.raises(ConnectionResetError):
        trial.client.recv(1)
    assert not trial.returned


def test_end_before_more_bytes_than_can_be_repeated_is_passed_on(trial: Trial) -> None:
    endpoint = trial.attempt(receive_buffer=2048)
    trial.client.sendall(bytes(REPLAY_BYTES // 2))
    assert endpoint.recv(1, socket.MSG_PEEK)
    endpoint.shutdown(socket.SHUT_WR)
    for _ in range(2):  # until the relay has seen the end, and unacknowledged bytes
        trial.rig.call(lambda: None)
    trial.client.sendall(bytes(REPLAY_BYTES // 2))
    assert trial.client.recv(1) == b""
    assert len(read_exactly(endpoint, REPLAY_BYTES)) == REPLAY_BYTES
    assert not trial.returned


def test_end_of_client_in_the_round_of_the_answer_is_passed_on(trial: Trial) -> None:
    endpoint = trial.attempt()
    together = threading.Barrier(2, timeout=PATIENCE_SECONDS)
    trial.rig.loop.call_soon_threadsafe(lambda: [together.wait() for _ in range(2)])
    together.wait()
    endpoint.sendall(b"greeting")
    trial.client.sendall(b"QUIT")
    trial.client.shutdown(socket.SHUT_WR)
    together.wait()
    assert read_all(endpoint) == b"QUIT"
    endpoint.close()
    assert read_all(trial.client) == b"greeting"


def test_client_that_resets_ends_the_attempt(trial: Trial) -> None:
    trial.attempt()
    trial.rig.finished_after(lambda: reset(trial.client))
    assert not trial.returned
