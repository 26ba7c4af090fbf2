"""Dials the endpoints of one service while somebody waits for them, and hands over each connection that succeeds.

A dial is nobody's in particular: whoever has waited longest when it succeeds gets it. So a client that gives up takes
no dial with it, and going back to holding is no more than closing the dials that are in flight.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from typing import Protocol

from tproxy import address
from tproxy.dial.pace import Pace
from tproxy.io.descriptors import Budget
from tproxy.io.loop import Loop, Timer

LOOK_SECONDS = 0.05
"""How often those that wait for descriptors look for some."""
_RESET = struct.pack("ii", 1, 0)


class Crowd:
    """What the dialers of one holder share."""

    __slots__ = ("_look", "_loop", "_starving", "probing")

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.probing = 0
        """How many are being refused at the moment: their grids widen with it."""
        self._starving: set[Dialer] = set()
        self._look: Timer | None = None

    def starve(self, dialer: Dialer) -> None:
        """It waits for descriptors, which may become free anywhere, and not only where `feed` is called."""
        self._starving.add(dialer)
        if self._look is None:
            self._look = self._loop.call_later(LOOK_SECONDS, self.feed)

    def feed(self) -> None:
        """Descriptors became free, or may have."""
        if self._look is not None:
            self._look.cancel()
            self._look = None
        starving, self._starving = self._starving, set()
        for dialer in starving:
            dialer.pump()


class Owner(Protocol):
    """Whom a dialer serves."""

    def wanted(self) -> int:
        """How many connections wait."""

    def connected(self, fd: int) -> None:
        """A dial succeeded; the descriptor is the owner's, counted in the budget."""


class _Dial:
    __slots__ = ("deadline", "dialer", "fd", "since")

    def __init__(self, dialer: Dialer, fd: int, since: float) -> None:
        self.dialer = dialer
        self.fd = fd
        self.since = since
        self.deadline = since + dialer.pace.patience

    def __call__(self, events: int) -> None:
        self.dialer.answered(self)


class Dialer:
    """Dials for one service."""

    def __init__(self, loop: Loop, budget: Budget, crowd: Crowd, owner: Owner, endpoints: tuple[str, ...]) -> None:
        self._loop = loop
        self._budget = budget
        self._crowd = crowd
        self._owner = owner
        self._dials: dict[int, _Dial] = {}
        self._turn = 0
        self._retry: Timer | None = None
        self._patience: Timer | None = None
        self._probing = False
        self._busy = False
        self.aim(endpoints)

    @property
    def in_flight(self) -> int:
        return len(self._dials)

    def aim(self, endpoints: tuple[str, ...]) -> None:
        """These are the endpoints from now on. Dials to others are closed, and what was learned of them forgotten."""
        self.cancel()
        self._endpoints = [address.sockaddr(one) for one in endpoints]
        self.pace = Pace()

    def cancel(self) -> None:
        """Close every dial in flight, and try no more until `pump`."""
        for dial in list(self._dials.values()):
            self._drop(dial)
        self._resume()

    def pump(self) -> None:
        """Start as many dials as are wanted and allowed."""
        if self._retry is not None or self._busy or not self._endpoints:
            return
        self._busy = True
        burst = self.pace.window
        try:
            while self._retry is None and burst > 0 and self._missing() > 0:
                burst -= 1
                self._dial()
        finally:
            self._busy = False
        if self._retry is None and self._missing() > 0:
            self._retry = self._loop.call_at(time.monotonic() + self.pace.gap_seconds, self._again)
        wanted = self._owner.wanted()
        if not wanted:
            self.cancel()
        elif self._retry is None and wanted > len(self._dials) and not self._budget.allows():
            self._crowd.starve(self)

    def _missing(self) -> int:
        return min(self._owner.wanted(), self.pace.window, len(self._dials) + self._budget.allows()) - len(self._dials)

    def _dial(self) -> None:
        family, target = self._endpoints[self._turn % len(self._endpoints)]
        self._turn += 1
        try:
            sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError:
            return self._refused()
        self._budget.used += 1
        now = time.monotonic()
        code = sock.connect_ex(target)
        dial = _Dial(self, sock.detach(), now)
        self._dials[dial.fd] = dial
        if code in (0, errno.EINPROGRESS):
            # Over the loopback the answer is there before connect() returns.
            if code == 0 or _is_connected(dial.fd, family):
                return self._succeeded(dial)
            try:
                self._loop.register(dial.fd, select.EPOLLOUT, dial)
            except OSError:
                pass
            else:
                return self._watch()
        self._drop(dial, registered=False)
        return self._refused()

    def answered(self, dial: _Dial) -> None:
        """The kernel has an answer."""
        if _error(dial.fd):
            self._drop(dial)
            self._refused()
        else:
            self._loop.unregister(dial.fd)
            self._succeeded(dial)
        self.pump()

    def _succeeded(self, dial: _Dial) -> None:
        del self._dials[dial.fd]
        if _is_to_itself(dial.fd):
            self._budget.used -= 1
            _reset(dial.fd)
            return self._refused()
        self.pace.succeeded(time.monotonic() - dial.since)
        self._resume()
        return self._owner.connected(dial.fd)

    def _refused(self) -> None:
        if not self._probing:
            self._probing = True
            self._crowd.probing += 1
        now = time.monotonic()
        delay = self.pace.refused(now, len(self._endpoints), self._crowd.probing)
        if delay and self._retry is None:
            self._retry = self._loop.call_at(now + delay, self._again)

    def _again(self) -> None:
        self._retry = None
        self.pump()

    def _resume(self) -> None:
        """No refusal stands any more."""
        if self._probing:
            self._probing = False
            self._crowd.probing -= 1
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def _watch(self) -> None:
        """One timer, for the dial that was started first: those behind it are given up no sooner."""
        if self._patience is None and self._dials:
            self._patience = self._loop.call_at(next(iter(self._dials.values())).deadline, self._give_up)

    def _give_up(self) -> None:
        self._patience = None
        now = time.monotonic()
        late = [dial for dial in self._dials.values() if dial.deadline <= now]
        for dial in late:
            self._drop(dial)
        if late:
            self.pace.unanswered()
            self._retry = self._retry or self._loop.call_at(now + self.pace.patience / 10, self._again)
        self._watch()

    def _drop(self, dial: _Dial, registered: bool = True) -> None:
        del self._dials[dial.fd]
        if registered:
            self._loop.unregister(dial.fd)
        os.close(dial.fd)
        self._budget.used -= 1


def _view(fd: int) -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fd)


def _error(fd: int) -> int:
    view = _view(fd)
    try:
        return view.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    finally:
        view.detach()


def _is_connected(fd: int, family: int) -> bool:
    return address.peer(fd, family) is not None


def _is_to_itself(fd: int) -> bool:
    """Dialling a local port of the ephemeral range where nobody listens can, by TCP's simultaneous open, connect a
    socket to itself, which would also keep the endpoint from ever binding that port."""
    view = socket.socket(fileno=fd)
    try:
        return bool(view.getsockname() == view.getpeername())
    except OSError:
        return False
    finally:
        view.detach()


def _reset(fd: int) -> None:
    view = _view(fd)
    try:
        view.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    finally:
        view.close()
