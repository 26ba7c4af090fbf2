"""Refuses a connection so that its client understands: a reset for TCP and TLS, a 503 with the reason for HTTP.

An HTTP answer is sent once the request has begun to arrive (an answer before any request is a protocol error to some
clients, Envoy among them). Then our side is shut down, and what the client still sends is read and thrown away until
it has read the answer and closed, because closing with unread bytes makes the kernel send a reset, which would destroy
the answer on its way.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time

from tproxy.io.descriptors import Budget
from tproxy.io.loop import Loop, Timer
from tproxy.protocols import http2
from tproxy.wire import HTTP

RESET_AFTER_SECONDS = 0.05
"""A reset that Envoy sees together with the success of its dial counts as a failed dial: it dials again, five times,
and then closes its client's connection as if all was well. So nobody is reset upon arrival, if there is room."""
LINGER_SECONDS = 2.0
LINGER_BYTES = 16 * 2**20
MAX_LINGERING = 1024
"""Past this many, the ones to come are reset: a refusal must not become a way to hold us up."""
_READ = 65_536
_RESET = struct.pack("ii", 1, 0)


def http1(reason: str, retry_after_seconds: int, head: bool = False) -> bytes:
    """A complete HTTP/1.1 answer (RFC 9112); without its body for a HEAD request."""
    body = f"{reason}\n".encode()
    lines = (
        "HTTP/1.1 503 Service Unavailable",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
        f"Retry-After: {retry_after_seconds}",
        "Connection: close",
    )
    return "\r\n".join((*lines, "", "")).encode() + (b"" if head else body)


class Answer:
    """What one client is answered, whichever HTTP it speaks: bytes in, bytes out. No I/O here."""

    def __init__(self, reason: str, retry_after_seconds: int, last: int | None = None) -> None:
        self._reason = " ".join(reason.split())
        self._retry_after = retry_after_seconds
        self._h2 = http2.Refusing(self._reason, retry_after_seconds, last)
        self._begin: bytes | None = b""
        self.done = False
        """All is said: our side can be shut down."""

    def receive(self, data: bytes) -> bytes:
        """What to send upon this."""
        if self.done:
            return b""
        if self._begin is not None:
            self._begin += data
            if len(self._begin) < len(http2.PREFACE) and http2.PREFACE.startswith(self._begin):
                return b""
            if not self._begin.startswith(http2.PREFACE):
                self.done = True
                return http1(self._reason, self._retry_after, self._begin.startswith(b"HEAD "))
            data, self._begin = self._begin, None
        out = self._h2.receive(data)
        if self._h2.done:
            self.done = True
            out += self._h2.goaway()
        return out

    def end(self) -> bytes:
        """What to send when no more is waited for."""
        return b"" if self.done or self._begin is not None else self._h2.goaway()


class _Lingering:
    __slots__ = ("answer", "left", "out", "refuser", "sock", "timer")

    def __init__(self, refuser: Refuser, sock: socket.socket, answer: Answer) -> None:
        self.refuser = refuser
        self.sock = sock
        self.answer = answer
        self.left = LINGER_BYTES
        self.out = b""
        self.timer: Timer | None = None

    def __call__(self, events: int) -> None:
        self.refuser.serve(self, events)

    def expire(self) -> None:
        self.timer = None
        self.refuser.end(self)


class Refuser:
    """Ends connections that may not be served. Takes the descriptor, and gives it back to the budget."""

    def __init__(self, loop: Loop, budget: Budget) -> None:
        self._loop = loop
        self._budget = budget
        self._lingering: set[_Lingering] = set()
        self._resets = 0

    @property
    def lingering(self) -> int:
        """Refusals that are not done with."""
        return len(self._lingering) + self._resets

    def refuse(
        self, fd: int, family: int, protocol: str, reason: str, retry_after_seconds: int, last: int | None = None
    ) -> None:
        """Refuse a connection as its protocol would have it; of HTTP/2, what came after the stream `last` is not
        answered but may be asked again (None: answer what comes first)."""
        if self.lingering >= MAX_LINGERING:
            self._reset(fd)
            return
        if protocol not in HTTP:
            if self._budget.admits():
                self._reset_soon(fd)
            else:
                self._reset(fd)
            return
        sock = socket.socket(family, socket.SOCK_STREAM, 0, fd)
        sock.setblocking(False)
        one = _Lingering(self, sock, Answer(reason, retry_after_seconds, last))
        try:
            self._loop.register(fd, select.EPOLLIN, one)
        except OSError:
            self._reset(sock.detach())
            return
        self._lingering.add(one)
        one.timer = self._loop.call_at(time.monotonic() + LINGER_SECONDS, one.expire)

    def _reset_soon(self, fd: int) -> None:
        def expire() -> None:
            self._resets -= 1
            self._reset(fd)

        self._resets += 1
        self._loop.call_at(time.monotonic() + RESET_AFTER_SECONDS, expire)

    def _reset(self, fd: int) -> None:
        reset(fd)
        self._budget.used -= 1

    def serve(self, one: _Lingering, events: int) -> None:
        """The client sent something, or takes more."""
        try:
            if events & ~select.EPOLLOUT:
                data = one.sock.recv(_READ)
                one.left -= len(data)
                if not data or one.left < 0:
                    return self.end(one)
                one.out += one.answer.receive(data)
            self._send(one)
        except BlockingIOError:
            pass
        except OSError:
            self._close(one)

    def end(self, one: _Lingering) -> None:
        """Say what is left to say, and close."""
        try:
            one.sock.send(one.out + one.answer.end())
        except OSError:
            pass
        self._close(one)

    def _send(self, one: _Lingering) -> None:
        if not one.out:
            return
        one.out = one.out[one.sock.send(one.out) :]
        if one.out:
            self._loop.modify(one.sock.fileno(), select.EPOLLIN | select.EPOLLOUT)
        elif one.answer.done:
            self._loop.modify(one.sock.fileno(), select.EPOLLIN)
            one.sock.shutdown(socket.SHUT_WR)

    def _close(self, one: _Lingering) -> None:
        if one not in self._lingering:
            return
        self._lingering.remove(one)
        if one.timer is not None:
            one.timer.cancel()
        self._loop.unregister(one.sock.fileno())
        one.sock.close()
        self._budget.used -= 1


def reset(fd: int) -> None:
    """Close with a reset, so that the client knows at once that nobody read what it sent."""
    view = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fd)
    try:
        view.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    except OSError:
        pass
    finally:
        view.detach()
        os.close(fd)
