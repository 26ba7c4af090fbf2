"""Refusals that clients understand: a reset for TCP and TLS, a 503 with the reason for HTTP.

An HTTP response is sent once the request has begun to arrive: some clients, Envoy among them, treat a response before
the request as a protocol error. Then writing is shut down, and bytes from the client are discarded until it closes.
Closing with unread bytes would make the kernel send a reset, which can destroy the response in transit.
"""

from __future__ import annotations

import os
import select
from contextlib import suppress

from tproxy.io import tcp
from tproxy.io.descriptors import Budget
from tproxy.io.loop import Loop
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
    __slots__ = ("_fd", "_left", "_out", "_refuser", "_response", "_timer")

    def __init__(self, refuser: Refuser, fd: int, response: RefusalResponse) -> None:
        self._refuser = refuser
        self._fd = fd
        self._response = response
        self._left = LINGER_BYTES
        self._out = b""
        refuser.loop.register(fd, select.EPOLLIN, self)
        self._timer = refuser.loop.call_later(LINGER_SECONDS, self._end)

    def __call__(self, events: int) -> None:
        """Read from the client and respond to it."""
        try:
            if events & ~select.EPOLLOUT:
                data = os.read(self._fd, _READ_SIZE)
                self._left -= len(data)
                if not data or self._left < 0:
                    return self._end()
                self._out += self._response.receive(data)
            self._send()
        except BlockingIOError:
            pass
        except OSError:
            self._close()

    def _send(self) -> None:
        if not self._out:
            return
        self._out = self._out[os.write(self._fd, self._out) :]
        self._refuser.loop.modify(self._fd, select.EPOLLIN | (select.EPOLLOUT if self._out else 0))
        if not self._out and self._response.done:
            tcp.end_writes(self._fd)

    def _end(self) -> None:
        """Send the rest of the response, and close."""
        with suppress(OSError):
            os.write(self._fd, self._out + self._response.end())
        self._close()

    def _close(self) -> None:
        self._timer.cancel()
        self._refuser.loop.unregister(self._fd)
        os.close(self._fd)
        self._refuser.forget(self)


class Refuser:
    """Ends connections that may not be served. Owns the descriptor, and returns it to the budget."""

    def __init__(self, loop: Loop, budget: Budget) -> None:
        self.loop = loop
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
            self.loop.call_later(RESET_AFTER_SECONDS, lambda: self._reset_late(fd))
            return
        try:
            self._lingering.add(_LingeringRefusal(self, fd, RefusalResponse(reason, retry_after_seconds, last)))
        except OSError:
            self._reset(fd)

    def forget(self, lingering: _LingeringRefusal) -> None:
        """Remove a refusal that is complete."""
        self._lingering.discard(lingering)
        self._budget.used -= 1

    def _reset_late(self, fd: int) -> None:
        self._resets -= 1
        self._reset(fd)

    def _reset(self, fd: int) -> None:
        tcp.reset(fd)
        self._budget.used -= 1
