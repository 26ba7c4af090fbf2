"""The first part of a relayed connection, until its endpoint answers.

A sidecar, a mesh, or a container runtime may accept connections for a program that does not listen yet, and end each
one a moment later. Nothing has reached the client then, so the connection can be held again and relayed over another
dial.

Until the endpoint answers, the client's bytes are peeked at and sent, but not read. The kernel keeps them for the next
attempt, which bounds them and needs no memory here. More than `REPLAY_BYTES` end the attempt: the bytes are then read
and moved by `flow.py`, as they are after the first byte of the answer.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP
from typing import Protocol

from tproxy.io import tcp
from tproxy.io.loop import Loop
from tproxy.relay.flow import UNUSUAL

REPLAY_BYTES = 1 << 14
"""An eighth of the kernel's usual receive buffer. A client must be able to send more than this before any of it is
read: otherwise its window closes, and the attempt waits for bytes that cannot come."""
SENT_SECONDS = 15.0
"""An endpoint that keeps bytes of the client for longer than this has begun to serve it. Sidecars give up earlier: the
connect timeout is 5 s in Envoy and 10 s in Istio."""
ACKNOWLEDGEMENT_POLL_SECONDS = 0.01


class AttemptOwner(Protocol):
    """The relayed connection that an attempt belongs to."""

    loop: Loop

    def on_attempt_completed(self, sent: int, client_events: int, endpoint_events: int) -> None:
        """Move bytes without the possibility to repeat; no events of the client mean that its end was passed on."""

    def on_attempt_lost(self) -> int:
        """Leave the relay and return the client's descriptor, which is the caller's."""


def may_repeat(*, is_reset: bool, has_sent: bool, client_ended: bool, seconds: float) -> bool:
    """Return whether a connection that the endpoint ended without an answer may be relayed over another dial.

    The kernel resets a connection that is closed with unread bytes, and ends it normally after all were read. Bytes
    that a program has read are not sent again.
    """
    if not has_sent:
        return not client_ended
    return is_reset and seconds < SENT_SECONDS


class Attempt:
    """One attempt to relay a held connection."""

    __slots__ = (
        "_at",
        "_client_ended",
        "_client_events",
        "_deadline",
        "_endpoint_events",
        "_is_blocked",
        "_on_lost",
        "_owner",
        "_since",
        "_skip",
        "client_fd",
        "endpoint_fd",
    )

    def __init__(self, skip: int, deadline: float, on_lost: Callable[[int], object]) -> None:
        """Skip the first bytes of the client, and repeat nothing after `deadline`, a monotonic time.

        `on_lost` receives the client's descriptor, to hold the connection again.
        """
        self._skip = self._at = skip
        self._deadline = deadline
        self._on_lost = on_lost
        self._owner: AttemptOwner | None = None
        self._since = 0.0
        self._client_events = self._endpoint_events = 0
        self._client_ended = self._is_blocked = False
        self.client_fd = self.endpoint_fd = -1

    @property
    def sent(self) -> int:
        """Bytes of the client that the kernel has accepted for the endpoint."""
        return self._at - self._skip

    def begin(self, owner: AttemptOwner, client_fd: int, endpoint_fd: int) -> None:
        """Begin to relay between two sockets, whose events the caller passes on."""
        self._owner, self.client_fd, self.endpoint_fd = owner, client_fd, endpoint_fd
        self._since = time.monotonic()

    def cancel(self) -> None:
        """Do nothing more: the connection was closed."""
        self._owner = None

    def on_client_events(self, events: int) -> None:
        """Send what the client sent; leave a reset and urgent data to the flows."""
        self._client_events |= events & UNUSUAL
        if events & (EPOLLERR | EPOLLHUP | EPOLLPRI):
            self._complete(0)
        elif events & (EPOLLIN | EPOLLRDHUP):
            self._send()

    def on_endpoint_events(self, events: int) -> None:
        """Complete the attempt at the first byte of the endpoint, or repeat it if there is none."""
        self._endpoint_events |= events & UNUSUAL
        if events & (EPOLLIN | UNUSUAL) and tcp.peek(self.endpoint_fd, 1):
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
        limit = self._skip + REPLAY_BYTES
        unread = tcp.peek(self.client_fd, limit)
        try:
            if len(unread) > self._at:
                self._at += os.write(self.endpoint_fd, memoryview(unread)[self._at :])
            self._is_blocked = self._at < len(unread)
            if ended and not (self._is_blocked or self._client_ended or len(unread) == limit):
                self._client_ended = True
                tcp.end_writes(self.endpoint_fd)
        except BlockingIOError:
            self._is_blocked = True
        except OSError:
            self.on_endpoint_events(EPOLLERR)
            return
        if len(unread) == limit:
            self._complete(0)

    def _on_end(self, is_reset: bool) -> None:
        if (owner := self._owner) is None:
            return
        now, has_sent = time.monotonic(), self._at > self._skip
        if has_sent and not is_reset and now < self._deadline and tcp.unacknowledged_bytes(self.endpoint_fd):
            # The endpoint may have closed before these bytes arrived. It then resets the connection.
            owner.loop.call_later(ACKNOWLEDGEMENT_POLL_SECONDS, lambda: self._on_end(is_reset=False))
        elif now < self._deadline and may_repeat(
            is_reset=is_reset,
            has_sent=has_sent,
            client_ended=self._client_ended,
            seconds=now - self._since,
        ):
            self._owner = None
            self._on_lost(owner.on_attempt_lost())
        else:
            self._complete(self._endpoint_events)

    def _complete(self, endpoint_events: int) -> None:
        """Read the bytes that were sent, and leave the rest to the flows."""
        if (owner := self._owner) is None:
            return
        self._owner = None
        tcp.discard(self.client_fd, self._at)
        events = 0 if self._client_ended else EPOLLIN | self._client_events
        owner.on_attempt_completed(self.sent, events, endpoint_events)
