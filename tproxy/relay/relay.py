"""Relayed connections: two connected sockets, joined until both directions have ended.

Half-close is honored in both directions. A reset of one side becomes a reset of the other side, once everything sent
before it has been delivered. A stream that lost bytes ends with a reset, never with a normal end. `flow.py` moves the
bytes.

A sidecar, a mesh, or a container runtime may accept connections for a program that does not listen yet, and end each
one a moment later. Nothing has reached the client then, so the connection can be held again and relayed over another
dial.

Until the endpoint answers, the client's bytes are peeked at and sent, but not read. The kernel keeps them for the next
attempt, which bounds them and needs no memory here. More than `REPLAY_BYTES` end the attempt: the bytes are then read
and moved by `flow.py`, as they are after the first byte of the answer.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP
from typing import Protocol

from tproxy import address
from tproxy.io import tcp
from tproxy.io.loop import Loop, Timer
from tproxy.relay.flow import INTEREST, NOTHING, UNUSUAL, Flow
from tproxy.relay.pipes import Pipes

RESET_GRACE_SECONDS = 5.0
"""The time that one side has to receive what the other side sent before its reset."""
ACKNOWLEDGEMENT_POLL_SECONDS = 0.01
REPLAY_BYTES = 1 << 14
"""An eighth of the kernel's usual receive buffer. A client must be able to send more than this before any of it is
read: otherwise its window closes, and the attempt waits for bytes that cannot come."""
SENT_SECONDS = 15.0
"""An endpoint that keeps bytes of the client for longer than this has begun to serve it. Sidecars give up earlier: the
connect timeout is 5 s in Envoy and 10 s in Istio."""


class RelayOwner(Protocol):
    """The component that starts relayed connections."""

    def on_first_byte(self) -> None:
        """Handle the first byte from the endpoint of a connection."""

    def on_relay_ended(self, relayed: RelayedConnection) -> None:
        """Handle the end of a connection, exactly once, after its sockets were closed."""


def may_repeat(*, is_reset: bool, has_sent: bool, client_ended: bool, seconds: float) -> bool:
    """Return whether a connection that the endpoint ended without an answer may be relayed over another dial.

    The kernel resets a connection that is closed with unread bytes, and ends it normally after all were read. Bytes
    that a program has read are not sent again.
    """
    if not has_sent:
        return not client_ended
    return is_reset and seconds < SENT_SECONDS


@dataclass(slots=True, eq=False)
class Attempt:
    """One attempt to relay a held connection."""

    skip: int
    """First bytes of the client, which the endpoint does not receive."""
    deadline: float
    """Monotonic time after which nothing is repeated."""
    on_lost: Callable[[RelayedConnection, int], object]
    """Receives a connection that left the relay without an answer, and its client's descriptor, to hold it again."""
    sent: int = 0
    """Bytes of the client that the kernel has accepted for the endpoint."""
    owner: RelayedConnection | None = None
    """The connection; None before the attempt, and once it is over."""
    _client_fd: int = -1
    _endpoint_fd: int = -1
    _since: float = 0.0
    _client_events: int = 0
    _endpoint_events: int = 0
    _client_ended: bool = False
    _is_blocked: bool = False

    def begin(self, owner: RelayedConnection, client_fd: int, endpoint_fd: int) -> None:
        """Begin to relay between two sockets, whose events the caller passes on."""
        self.owner, self._client_fd, self._endpoint_fd = owner, client_fd, endpoint_fd
        self._since = time.monotonic()

    def on_client_events(self, events: int) -> None:
        """Send what the client sent; leave a reset and urgent data to the flows."""
        self._client_events |= events & UNUSUAL
        if events & (EPOLLERR | EPOLLHUP | EPOLLPRI):
            self._complete(self._endpoint_events)
        elif events & (EPOLLIN | EPOLLRDHUP):
            self._send()

    def on_endpoint_events(self, events: int) -> None:
        """Complete the attempt at the first byte of the endpoint, or repeat it if there is none."""
        self._endpoint_events |= events & UNUSUAL
        if events & (EPOLLIN | UNUSUAL) and tcp.peek(self._endpoint_fd, 1):
            self._complete(events)
        elif events & (EPOLLERR | EPOLLHUP):
            self._on_end(is_reset=True)
        elif events & EPOLLRDHUP:
            self._on_end(is_reset=False)
        elif events & EPOLLOUT and self._is_blocked:
            self._send()

    def _send(self) -> None:
        """Send the client's bytes that are not sent yet, and its end, without reading them."""
        ended = bool(self._client_events & EPOLLRDHUP)
        at, limit = self.skip + self.sent, self.skip + REPLAY_BYTES
        unread = tcp.peek(self._client_fd, limit)
        try:
            if len(unread) > at:
                self.sent += os.write(self._endpoint_fd, memoryview(unread)[at:])
            self._is_blocked = self.skip + self.sent < len(unread)
            if ended and not (self._is_blocked or self._client_ended or len(unread) == limit):
                self._client_ended = True
                tcp.end_writes(self._endpoint_fd)
        except BlockingIOError:
            self._is_blocked = True
        except OSError:
            self.on_endpoint_events(EPOLLERR)
            return
        if len(unread) == limit:
            self._complete(self._endpoint_events)

    def _on_end(self, is_reset: bool) -> None:
        if (owner := self.owner) is None:
            return
        now, has_sent = time.monotonic(), self.sent > 0
        if has_sent and not is_reset and now < self.deadline and tcp.unacknowledged_bytes(self._endpoint_fd):
            # The endpoint may have closed before these bytes arrived. It then resets the connection.
            owner.loop.call_later(ACKNOWLEDGEMENT_POLL_SECONDS, lambda: self._on_end(is_reset=False))
        elif now < self.deadline and may_repeat(
            is_reset=is_reset,
            has_sent=has_sent,
            client_ended=self._client_ended,
            seconds=now - self._since,
        ):
            client_fd, endpoint_fd = owner.leave()
            os.close(endpoint_fd)
            self.on_lost(owner, client_fd)
        else:
            self._complete(self._endpoint_events)

    def _complete(self, endpoint_events: int) -> None:
        """Read the bytes that were sent, and leave the rest to the flows."""
        if (owner := self.owner) is None:
            return
        self.owner = None
        tcp.discard(self._client_fd, self.skip + self.sent)
        owner.on_attempt_completed(self.sent, self._client_ended, self._client_events, endpoint_events)


class RelayedConnection:
    """One relayed connection. Raises OSError if its sockets cannot be registered."""

    __slots__ = ("_attempt", "_down", "_grace", "_owner", "_relay", "_up", "loop", "pipes")

    def __init__(self, relay: Relay, client_fd: int, endpoint_fd: int, owner: RelayOwner, attempt: Attempt) -> None:
        self.loop = relay.loop
        self.pipes = relay.pipes
        self._relay = relay
        self._owner = owner
        self._attempt: Attempt | None = attempt
        """None once the endpoint has answered."""
        self._grace: Timer | None = None
        self._up = up = Flow(self, client_fd, endpoint_fd)
        self._down = down = Flow(self, endpoint_fd, client_fd)
        up.twin, down.twin = down, up
        for fd in (client_fd, endpoint_fd):
            _set_options(fd)
        attempt.begin(self, client_fd, endpoint_fd)
        self.loop.register(client_fd, INTEREST, attempt.on_client_events)
        try:
            self.loop.register(endpoint_fd, INTEREST, attempt.on_endpoint_events)
        except OSError:
            self.loop.unregister(client_fd)
            raise

    @property
    def bytes_up(self) -> int:
        """Bytes from the client that the kernel has accepted for the endpoint."""
        return self._attempt.sent if self._attempt is not None else self._up.moved

    @property
    def bytes_down(self) -> int:
        """Bytes from the endpoint that the kernel has accepted for the client."""
        return self._down.moved

    @property
    def closed(self) -> bool:
        return self._up.source < 0

    def close(self, reset: bool = False) -> None:
        """End the connection in both directions, with a reset if requested or if bytes were not delivered.

        Has no effect on a closed connection.
        """
        up, down = self._up, self._down
        if self.closed:
            return
        reset = reset or up.undelivered or down.undelivered
        up.stop()
        down.stop()
        if self._grace is not None:
            self._grace.cancel()
        for fd in self.leave():
            if reset:
                tcp.reset(fd)
            else:
                os.close(fd)
        self._owner.on_relay_ended(self)

    def on_attempt_completed(self, sent: int, client_ended: bool, client_events: int, endpoint_events: int) -> None:
        """Move bytes without the possibility to repeat; `client_ended` if the client's end was passed on."""
        up, down, self._attempt = self._up, self._down, None
        up.moved = sent
        if client_ended:
            up.waits = NOTHING
        self.loop.rebind(up.source, up.on_events)
        self.loop.rebind(down.source, down.on_events)
        if endpoint_events:
            down.on_events(endpoint_events)
        if not self.closed:
            # Handled like an end, this empties the socket. An end that the loop reports later in this round would
            # otherwise find the flow waiting for its batch, and be lost.
            up.on_events(EPOLLRDHUP | client_events)

    def leave(self) -> tuple[int, int]:
        """Leave the relay and return both descriptors, which are the caller's."""
        up, down = self._up, self._down
        fds = up.source, down.source
        up.source = up.sink = down.source = down.sink = -1
        if self._attempt is not None:
            up.moved = self._attempt.sent
            self._attempt.owner = None
            self._attempt = None
        for fd in fds:
            self.loop.unregister(fd)
        self._relay.connections.discard(self)
        return fds

    def on_first_byte(self, flow: Flow) -> None:
        """Report the first byte from the endpoint."""
        if flow is self._down:
            self._owner.on_first_byte()

    def on_source_broken(self, flow: Flow) -> None:
        """Give the other side time to receive what was sent before, unless it is broken too."""
        if flow.twin.broken:
            self.close(reset=True)
        elif self._grace is None and not self.closed:
            self._grace = self.loop.call_later(RESET_GRACE_SECONDS, lambda: self.close(reset=True))

    def on_broken_source_drained(self, flow: Flow) -> None:
        """Reset after the peer of the sink has acknowledged all bytes: a reset drops those that were not sent yet."""
        if self.closed:
            return
        if tcp.unacknowledged_bytes(flow.sink):
            self.loop.call_later(ACKNOWLEDGEMENT_POLL_SECONDS, lambda: self.on_broken_source_drained(flow))
        else:
            self.close(reset=True)


class Relay:
    """The relayed connections of one loop."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.pipes = Pipes()
        self.connections: set[RelayedConnection] = set()

    def start(self, client_fd: int, endpoint_fd: int, owner: RelayOwner, attempt: Attempt) -> RelayedConnection:
        """Join two connected, non-blocking TCP sockets. Raises OSError.

        The relay owns both descriptors from now on, also when it raises. It does not call the owner before it returns.
        """
        try:
            relayed = RelayedConnection(self, client_fd, endpoint_fd, owner, attempt)
        except OSError:
            os.close(client_fd)
            os.close(endpoint_fd)
            raise
        self.connections.add(relayed)
        return relayed

    def close(self) -> None:
        """Reset every connection, and close the pipes."""
        for relayed in list(self.connections):
            relayed.close(reset=True)
        self.pipes.close()


def _set_options(fd: int) -> None:
    """Send small messages at once; on loopback, where no link can be congested, do not pace.

    With BBR as congestion control, pacing takes half of the CPU time of a bulk transfer.
    """
    with tcp.borrow(fd) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if address.is_loopback(sock.getsockname()[0]):
            with contextlib.suppress(OSError):  # a system may lack reno or forbid it
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
