"""Relayed connections: two connected sockets, joined until both directions have ended.

Half-close is honored in both directions. A reset of one side becomes a reset of the other side, once everything sent
before it has been delivered. A stream that lost bytes ends with a reset, never with a normal end. `flow.py` moves the
bytes.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import Protocol

from tproxy import address
from tproxy.io import tcp
from tproxy.io.loop import Loop, Timer
from tproxy.relay.attempt import Attempt
from tproxy.relay.flow import INTEREST, NOTHING, Flow
from tproxy.relay.pipes import Pipes

RESET_GRACE_SECONDS = 5.0
"""The time that one side has to receive what the other side sent before its reset."""
RESET_POLL_SECONDS = 0.01


class RelayOwner(Protocol):
    """The component that starts relayed connections."""

    def on_first_byte(self, relayed: RelayedConnection) -> None:
        """Handle the first byte from the endpoint; `first_byte_at` is set."""

    def on_relay_lost(self, relayed: RelayedConnection) -> None:
        """Handle a connection that left the relay without an answer, and that did not end."""

    def on_relay_ended(self, relayed: RelayedConnection) -> None:
        """Handle the end of a connection, exactly once, after its sockets were closed."""


class RelayedConnection:
    """One relayed connection."""

    __slots__ = ("_attempt", "_down", "_grace", "_owner", "_relay", "_up", "first_byte_at", "loop", "pipes")

    def __init__(
        self, relay: Relay, client_fd: int, endpoint_fd: int, owner: RelayOwner, attempt: Attempt | None = None
    ) -> None:
        self.first_byte_at: float | None = None
        """The time of the first byte from the endpoint, in seconds since the epoch."""
        self.loop = relay.loop
        self.pipes = relay.pipes
        self._relay = relay
        self._owner = owner
        self._attempt = attempt
        """None once the endpoint has answered, and from the start if nothing is repeated."""
        self._grace: Timer | None = None
        self._up = up = Flow(self, client_fd, endpoint_fd)
        self._down = down = Flow(self, endpoint_fd, client_fd)
        up.twin, down.twin = down, up

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

    def open(self) -> None:
        """Register both sockets. Raises OSError."""
        up, down = self._up, self._down
        for fd in (up.source, down.source):
            _set_options(fd)
        on_client_events, on_endpoint_events = up.on_events, down.on_events
        if (attempt := self._attempt) is not None:
            attempt.begin(self, up.source, down.source)
            on_client_events, on_endpoint_events = attempt.on_client_events, attempt.on_endpoint_events
        self.loop.register(up.source, INTEREST, on_client_events)
        try:
            self.loop.register(down.source, INTEREST, on_endpoint_events)
        except OSError:
            self.loop.unregister(up.source)
            raise

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
        for fd in self._leave():
            if reset:
                tcp.reset(fd)
            else:
                os.close(fd)
        self._owner.on_relay_ended(self)

    def on_attempt_completed(self, sent: int, client_events: int, endpoint_events: int) -> None:
        """Move bytes without the possibility to repeat; no events of the client mean that its end was passed on."""
        up, down, self._attempt = self._up, self._down, None
        up.resume_after(sent, ended=not client_events)
        self.loop.rebind(up.source, up.on_events)
        self.loop.rebind(down.source, down.on_events)
        if endpoint_events:
            down.on_events(endpoint_events)
        if client_events and not self.closed:
            up.on_events(client_events)

    def on_attempt_lost(self) -> int:
        """Close the endpoint's side and return the client's descriptor, which is the caller's."""
        client_fd, endpoint_fd = self._leave()
        os.close(endpoint_fd)
        self._owner.on_relay_lost(self)
        return client_fd

    def _leave(self) -> tuple[int, int]:
        """Leave the relay and return both descriptors, which are the caller's."""
        up, down = self._up, self._down
        fds = up.source, down.source
        up.source = up.sink = down.source = down.sink = -1
        if self._attempt is not None:
            up.moved = self._attempt.sent
            self._attempt.cancel()
            self._attempt = None
        for fd in fds:
            self.loop.unregister(fd)
        self._relay.connections.discard(self)
        return fds

    def on_first_byte(self, flow: Flow) -> None:
        """Record the time of the first byte from the endpoint."""
        if flow is self._down:
            self.first_byte_at = time.time()
            self._owner.on_first_byte(self)

    def on_source_ended(self, flow: Flow) -> None:
        """Pass on the end of one direction; close after both have ended."""
        if flow.twin.waits == NOTHING:
            self.close()
            return
        try:
            tcp.end_writes(flow.sink)
        except OSError:
            flow.twin.break_source()

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
            self.loop.call_later(RESET_POLL_SECONDS, lambda: self.on_broken_source_drained(flow))
        else:
            self.close(reset=True)


class Relay:
    """The relayed connections of one loop."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.pipes = Pipes()
        self.connections: set[RelayedConnection] = set()

    def __len__(self) -> int:
        return len(self.connections)

    def start(
        self, client_fd: int, endpoint_fd: int, owner: RelayOwner, attempt: Attempt | None = None
    ) -> RelayedConnection:
        """Join two connected, non-blocking TCP sockets, and repeat nothing without an `attempt`. Raises OSError.

        The relay owns both descriptors from now on, also when it raises. It does not call the owner before it returns.
        """
        relayed = RelayedConnection(self, client_fd, endpoint_fd, owner, attempt)
        try:
            relayed.open()
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
