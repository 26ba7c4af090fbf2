"""The relay: joins two connected sockets, and moves bytes both ways until both have ended.

Rules: half-close is honoured both ways; a reset of one side becomes a reset of the other, once what was sent before it
has been delivered; bytes that are lost never look like a stream that ended. Moving them is `flow.py`'s business.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import termios
import time
from collections.abc import Callable

from tproxy import address
from tproxy.io.loop import Loop, Timer
from tproxy.relay.flow import INTEREST, NOTHING, Flow
from tproxy.relay.pipes import Pipes

RESET_GRACE_SECONDS = 5.0
"""How long the side that is still there may take to receive what the other one had sent before it was reset."""
RESET_POLL_SECONDS = 0.01
LINGER_RESET = struct.pack("ii", 1, 0)


class Relayed:
    """One relayed connection; `tag` is the user's own.

    `bytes_up` (from the client) and `bytes_down` (from upstream) count what the kernel took for the other side;
    `first_byte_at` is when the first byte came from upstream, in seconds since the epoch.
    """

    __slots__ = ("_down", "_grace", "_relay", "_up", "first_byte_at", "loop", "pipes", "tag")

    def __init__(self, relay: Relay, client_fd: int, upstream_fd: int, tag: object) -> None:
        self.tag = tag
        self.first_byte_at: float | None = None
        self._relay = relay
        self.loop = relay.loop
        self.pipes = relay.pipes
        self._grace: Timer | None = None
        self._up = up = Flow(self, client_fd, upstream_fd)
        self._down = down = Flow(self, upstream_fd, client_fd)
        up.twin, down.twin = down, up

    @property
    def bytes_up(self) -> int:
        """Bytes from the client, early ones included."""
        return self._up.moved

    @property
    def bytes_down(self) -> int:
        """Bytes from upstream."""
        return self._down.moved

    @property
    def closed(self) -> bool:
        """Whether it is over, one way or the other."""
        return self._up.source < 0

    def close(self, reset: bool = False) -> None:
        """End the connection now, both ways; by a reset if that is wanted, or if bytes would be missing otherwise.

        Harmless when it is over already. `on_done` is called from in here.
        """
        up, down = self._up, self._down
        if self.closed:
            return
        client_fd, upstream_fd = up.source, down.source
        reset = reset or up.undelivered or down.undelivered
        up.give_up()
        down.give_up()
        up.source = up.sink = down.source = down.sink = -1
        if self._grace is not None:
            self._grace.cancel()
        for fd in (client_fd, upstream_fd):
            self.loop.unregister(fd)
            if reset:
                _set_option(fd, socket.SOL_SOCKET, socket.SO_LINGER, LINGER_RESET)
            os.close(fd)
        self._relay.done(self)

    # What the two flows call.

    def first_byte(self, flow: Flow) -> None:
        """Note the time, if it came from upstream."""
        if flow is self._down:
            self.first_byte_at = time.time()
            if self._relay.on_first_byte is not None:
                self._relay.on_first_byte(self)

    def ended(self, flow: Flow) -> None:
        """Pass the end on; after both ends, close."""
        if flow.twin.waits == NOTHING:
            self.close()
            return
        try:
            _with_socket(flow.sink, lambda sink: sink.shutdown(socket.SHUT_WR))
        except OSError:
            flow.twin.break_source()

    def broken(self, flow: Flow) -> None:
        """Let the other side have what was sent before; not for ever, and not if it is gone too."""
        if flow.twin.broken:
            self.close(reset=True)
        elif self._grace is None and not self.closed:
            self._grace = self.loop.call_later(RESET_GRACE_SECONDS, lambda: self.close(reset=True))

    def drained(self, flow: Flow) -> None:
        """Reset, once the sink's peer has acknowledged all: a reset drops what the kernel has not sent yet."""
        if self.closed:
            return
        if _unacknowledged(flow.sink):
            self.loop.call_later(RESET_POLL_SECONDS, lambda: self.drained(flow))
        else:
            self.close(reset=True)


class Relay:
    """All relayed connections of one loop.

    `on_done(relayed)` is called exactly once for each of them, when its sockets have been closed, whoever closed it.
    `on_first_byte(relayed)` is called when `first_byte_at` has been set.
    """

    def __init__(
        self,
        loop: Loop,
        on_done: Callable[[Relayed], object],
        on_first_byte: Callable[[Relayed], object] | None = None,
    ) -> None:
        self.loop = loop
        self.pipes = Pipes()
        self.on_first_byte = on_first_byte
        self._on_done = on_done
        self._relayed: set[Relayed] = set()

    def __len__(self) -> int:
        return len(self._relayed)

    def start(self, client_fd: int, upstream_fd: int, early: bytes = b"", tag: object = None) -> Relayed:
        """Join two connected, non-blocking TCP sockets, and own them from now on, also when this raises (OSError).

        `early` is what was read from the client already: it goes upstream first. No callback is made from in here.
        """
        relayed = Relayed(self, client_fd, upstream_fd, tag)
        up, down = relayed._up, relayed._down
        try:
            for fd in (client_fd, upstream_fd):
                _with_socket(fd, _prepare)
            if early:
                up.start_with(early)
            self.loop.register(client_fd, INTEREST, up.on_events)
            try:
                self.loop.register(upstream_fd, INTEREST, down.on_events)
            except OSError:
                self.loop.unregister(client_fd)
                raise
        except OSError:
            os.close(client_fd)
            os.close(upstream_fd)
            raise
        self._relayed.add(relayed)
        return relayed

    def done(self, relayed: Relayed) -> None:
        """Forget a connection that has been closed."""
        self._relayed.discard(relayed)
        self._on_done(relayed)

    def close(self) -> None:
        """Reset every connection, and give the pipes back."""
        for relayed in list(self._relayed):
            relayed.close(reset=True)
        self.pipes.close()


def _prepare(sock: socket.socket) -> None:
    """No waiting for more to send; and on loopback, where no wire can be congested, no pacing as if there were one.

    Where the system's congestion control is BBR, that pacing takes half of all CPU time that bulk data takes.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if address.is_loopback(sock.getsockname()[0]):
        with contextlib.suppress(OSError):  # a system may lack it, or not allow it
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")


def _with_socket(fd: int, use: Callable[[socket.socket], object]) -> None:
    # Python has these calls on socket objects only; the family is not looked at by any of them.
    borrowed = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fd)
    try:
        use(borrowed)
    finally:
        borrowed.detach()


def _set_option(fd: int, level: int, option: int, value: int | bytes) -> None:
    _with_socket(fd, lambda borrowed: borrowed.setsockopt(level, option, value))


def _unacknowledged(fd: int) -> int:
    """Bytes that were written to the socket and not acknowledged yet (SIOCOUTQ of tcp(7))."""
    try:
        return int.from_bytes(fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)), "little")
    except OSError:
        return 0
