"""Refusals that clients understand: a reset for TCP and TLS, a 503 with the reason for HTTP.

An HTTP response is sent once the request has begun to arrive: some clients, Envoy among them, treat a response before
the request as a protocol error. Then writing is shut down, and bytes from the client are discarded until it closes.
Closing with unread bytes would make the kernel send a reset, which can destroy the response in transit.
"""

from __future__ import annotations

import os
import select

from tproxy.io import tcp
from tproxy.io.descriptors import Budget
from tproxy.io.loop import Loop, Timer
from tproxy.protocols.refusal_response import RefusalResponse
from tproxy.wire import HTTP

RESET_AFTER_SECONDS = 0.05
"""Envoy counts a reset that it sees together with the success of its dial as a failed dial: it dials again, five times,
and then closes its client's connection normally. So no connection is reset on arrival if there is room."""
LINGER_SECONDS = 2.0
LINGER_BYTES = 16 * 2**20
MAX_LINGERING = 1024
"""Refusals beyond this number are resets, so that refusing cannot exhaust the holder."""
_READ_SIZE = 65_536


class _LingeringRefusal:
    __slots__ = ("fd", "left", "out", "refuser", "response", "timer")

    def __init__(self, refuser: Refuser, fd: int, response: RefusalResponse) -> None:
        self.refuser = refuser
        self.fd = fd
        self.response = response
        self.left = LINGER_BYTES
        self.out = b""
        self.timer: Timer | None = None

    def __call__(self, events: int) -> None:
        self.refuser.on_events(self, events)

    def expire(self) -> None:
        self.timer = None
        self.refuser.end(self)


class Refuser:
    """Ends connections that may not be served. Owns the descriptor, and returns it to the budget."""

    def __init__(self, loop: Loop, budget: Budget) -> None:
        self._loop = loop
        self._budget = budget
        self._lingering: set[_LingeringRefusal] = set()
        self._resets = 0

    @property
    def lingering(self) -> int:
        """Refusals that are not complete."""
        return len(self._lingering) + self._resets

    def refuse(
        self, fd: int, protocol: str = "tcp", reason: str = "", retry_after_seconds: int = 1, last: int | None = None
    ) -> None:
        """Refuse a connection in its protocol.

        HTTP/2 requests after stream `last` are not answered but may be repeated (None: the first ones are answered).
        """
        if self.lingering >= MAX_LINGERING or (protocol not in HTTP and not self._budget.admits_held()):
            self._reset(fd)
            return
        if protocol not in HTTP:
            self._resets += 1
            self._loop.call_later(RESET_AFTER_SECONDS, lambda: self._reset_late(fd))
            return
        lingering = _LingeringRefusal(self, fd, RefusalResponse(reason, retry_after_seconds, last))
        try:
            self._loop.register(fd, select.EPOLLIN, lingering)
        except OSError:
            self._reset(fd)
            return
        self._lingering.add(lingering)
        lingering.timer = self._loop.call_later(LINGER_SECONDS, lingering.expire)

    def _reset_late(self, fd: int) -> None:
        self._resets -= 1
        self._reset(fd)

    def _reset(self, fd: int) -> None:
        tcp.reset(fd)
        self._budget.used -= 1

    def on_events(self, lingering: _LingeringRefusal, events: int) -> None:
        """Read from the client and respond to it."""
        try:
            if events & ~select.EPOLLOUT:
                data = os.read(lingering.fd, _READ_SIZE)
                lingering.left -= len(data)
                if not data or lingering.left < 0:
                    return self.end(lingering)
                lingering.out += lingering.response.receive(data)
            self._send(lingering)
        except BlockingIOError:
            pass
        except OSError:
            self._close(lingering)

    def end(self, lingering: _LingeringRefusal) -> None:
        """Send the rest of the response, and close."""
        try:
            os.write(lingering.fd, lingering.out + lingering.response.end())
        except OSError:
            pass
        self._close(lingering)

    def _send(self, lingering: _LingeringRefusal) -> None:
        if not lingering.out:
            return
        lingering.out = lingering.out[os.write(lingering.fd, lingering.out) :]
        if lingering.out:
            self._loop.modify(lingering.fd, select.EPOLLIN | select.EPOLLOUT)
        elif lingering.response.done:
            self._loop.modify(lingering.fd, select.EPOLLIN)
            tcp.end_writes(lingering.fd)

    def _close(self, lingering: _LingeringRefusal) -> None:
        if lingering not in self._lingering:
            return
        self._lingering.remove(lingering)
        if lingering.timer is not None:
            lingering.timer.cancel()
        self._loop.unregister(lingering.fd)
        os.close(lingering.fd)
        self._budget.used -= 1
