"""Dials to the endpoints of one service while connections are held for it.

A dial does not belong to a particular held connection: the oldest one receives it when it succeeds. A client that
disconnects therefore cancels no dial, and returning to holding only closes the dials in flight.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from dataclasses import dataclass
from typing import Protocol

from tproxy import address
from tproxy.dial.pace import LOST_SECONDS_MIN, DialPace
from tproxy.io import tcp
from tproxy.io.descriptors import Budget
from tproxy.io.loop import Loop, Timer

DESCRIPTOR_POLL_SECONDS = 0.05
"""Interval at which dialers that wait for descriptors look for free ones."""


class DialLimiter:
    """The limits that all dialers of a holder share: descriptors, and the number of services that are retried."""

    def __init__(self, loop: Loop, budget: Budget, keepalive_seconds: int) -> None:
        self.loop = loop
        self.keepalive_seconds = keepalive_seconds
        self.budget = budget
        self.retrying: set[Dialer] = set()
        """Those whose dials are refused at present; each one lengthens the interval between retries of all."""
        self._waiting: set[Dialer] = set()
        self._poll: Timer | None = None

    def wait_for_descriptors(self, dialer: Dialer) -> None:
        """Pump the dialer again soon: descriptors may become free without a call of `resume`."""
        self._waiting.add(dialer)
        if self._poll is None:
            self._poll = self.loop.call_later(DESCRIPTOR_POLL_SECONDS, self.resume)

    def resume(self) -> None:
        """Pump all waiting dialers, because descriptors may have become free."""
        if self._poll is not None:
            self._poll.cancel()
            self._poll = None
        waiting, self._waiting = self._waiting, set()
        for dialer in waiting:
            dialer.pump()


class DialOwner(Protocol):
    """The component that connections are dialed for."""

    def dials_wanted(self) -> int:
        """Return the number of connections that wait for a dial."""

    def on_connected(self, fd: int) -> None:
        """Handle a dial that succeeded; the descriptor, counted in the budget, is the owner's."""


@dataclass(slots=True, eq=False)
class _Dial:
    dialer: Dialer
    fd: int
    since: float
    deadline: float

    def __call__(self, events: int) -> None:
        self.dialer.on_answer(self)


class Dialer:
    """Dials for one service."""

    def __init__(self, limiter: DialLimiter, owner: DialOwner, endpoints: tuple[str, ...]) -> None:
        self._limiter = limiter
        self._loop = limiter.loop
        self._budget = limiter.budget
        self._owner = owner
        self._dials: dict[int, _Dial] = {}
        self._turn = 0
        self._retry: Timer | None = None
        self._timeout: Timer | None = None
        self._is_pumping = False
        self.set_endpoints(endpoints)

    def set_endpoints(self, endpoints: tuple[str, ...]) -> None:
        """Use these endpoints from now on; close the dials to others and forget their pace."""
        self.cancel()
        self._endpoints = [address.sockaddr(one) for one in endpoints]
        self.pace = DialPace()

    def cancel(self) -> None:
        """Close every dial in flight and start no other until `pump`."""
        for dial in list(self._dials.values()):
            self._drop(dial)
        self._stop_retrying()

    def lost(self) -> None:
        """Dial less often: the endpoint ended a connection without an answer."""
        now = time.monotonic()
        delay = self.pace.lost(now)
        self._stop_retrying()
        self._retry_at(now + delay)

    def answered(self) -> None:
        """Dial as usual: the endpoint sent the first byte of a connection."""
        if self.pace.is_losing:
            self.pace.answered()
            self._stop_retrying()
            self.pump()

    def pump(self) -> None:
        """Start as many dials as are wanted and allowed."""
        if self._retry is not None or self._is_pumping or not self._endpoints:
            return
        self._is_pumping = True
        burst = self.pace.window
        try:
            while self._retry is None and burst > 0 and self._missing() > 0:
                burst -= 1
                self._dial()
        finally:
            self._is_pumping = False
        if self._retry is None and self._missing() > 0:
            self._retry_at(time.monotonic() + self.pace.gap_seconds)
        wanted = self._owner.dials_wanted()
        if not wanted:
            self.cancel()
        elif self._retry is None and wanted > len(self._dials) and not self._budget.dials_allowed():
            self._limiter.wait_for_descriptors(self)

    def _missing(self) -> int:
        in_flight = len(self._dials)
        return min(self._owner.dials_wanted(), self.pace.window, in_flight + self._budget.dials_allowed()) - in_flight

    def _dial(self) -> None:
        """Start one dial, to the next endpoint in turn. It may succeed or be refused at once."""
        family, target = self._endpoints[self._turn % len(self._endpoints)]
        self._turn += 1
        try:
            sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError:
            return self._refused()
        self._budget.used += 1
        tcp.keep_alive(sock, self._limiter.keepalive_seconds)
        now = time.monotonic()
        code = sock.connect_ex(target)
        dial = _Dial(self, sock.detach(), now, now + self.pace.timeout_seconds)
        self._dials[dial.fd] = dial
        if code in (0, errno.EINPROGRESS):
            # On loopback the dial is answered before connect() returns.
            if code == 0 or tcp.peer_address(dial.fd) is not None:
                return self._succeeded(dial)
            try:
                self._loop.register(dial.fd, select.EPOLLOUT, dial)
            except OSError:
                pass
            else:
                return self._arm_timeout()
        self._drop(dial, registered=False)
        return self._refused()

    def on_answer(self, dial: _Dial) -> None:
        """Handle the result of a dial in flight."""
        with tcp.borrow(dial.fd) as sock:
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self._drop(dial)
            self._refused()
        else:
            self._loop.unregister(dial.fd)
            self._succeeded(dial)
        self.pump()

    def _succeeded(self, dial: _Dial) -> None:
        del self._dials[dial.fd]
        if _is_connected_to_itself(dial.fd):
            self._budget.used -= 1
            tcp.reset(dial.fd)
            return self._refused()
        self.pace.succeeded(time.monotonic() - dial.since)
        self._stop_retrying()
        if self.pace.is_losing:
            self._retry_at(time.monotonic() + LOST_SECONDS_MIN)
        return self._owner.on_connected(dial.fd)

    def _refused(self) -> None:
        self._limiter.retrying.add(self)
        now = time.monotonic()
        if delay := self.pace.refused(now, len(self._endpoints), len(self._limiter.retrying)):
            self._retry_at(now + delay)

    def _retry_at(self, moment: float) -> None:
        if self._retry is None:
            self._retry = self._loop.call_at(moment, self._on_retry)

    def _on_retry(self) -> None:
        self._retry = None
        self.pump()

    def _stop_retrying(self) -> None:
        self._limiter.retrying.discard(self)
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def _arm_timeout(self) -> None:
        """Arm one timer, for the oldest dial; the others have later deadlines."""
        if self._timeout is None and self._dials:
            self._timeout = self._loop.call_at(next(iter(self._dials.values())).deadline, self._on_timeout)

    def _on_timeout(self) -> None:
        self._timeout = None
        now = time.monotonic()
        late = [dial for dial in self._dials.values() if dial.deadline <= now]
        for dial in late:
            self._drop(dial)
        if late:
            self.pace.unanswered()
            self._retry_at(now + self.pace.timeout_seconds / 10)
        self._arm_timeout()

    def _drop(self, dial: _Dial, registered: bool = True) -> None:
        del self._dials[dial.fd]
        if registered:
            self._loop.unregister(dial.fd)
        os.close(dial.fd)
        self._budget.used -= 1


def _is_connected_to_itself(fd: int) -> bool:
    """Return whether both ends of a connection are this socket.

    A dial to a local port of the ephemeral range that has no listener can do so by TCP's simultaneous open. It would
    keep the endpoint from binding that port.
    """
    with tcp.borrow(fd) as sock:
        try:
            return bool(sock.getsockname() == sock.getpeername())
        except OSError:
            return False
