"""Mode tproxy: whether the rules divert connections here. The holder sees by dialling, itself, what they are for.

That takes no tool and no right. Such a connection is known by both of its ends, which nobody else has while it is open,
and gets no further than `takes`: it is no held connection, and wakes nothing. An answer that says neither yes nor no
(somebody else listens there, or accepting is behind) leaves what was known before.
"""

from __future__ import annotations

import errno
import os
import random
import select
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from tproxy import address
from tproxy.loop import Loop, Timer

LOOK_SECONDS = 30.0
TRIES = 8
"""Of a port that is no hold address in use."""
_RESET = struct.pack("ii", 1, 0)
_PENDING = (0, errno.EINPROGRESS)
_NOBODY = (errno.ECONNREFUSED, errno.ETIMEDOUT)
Ends = tuple[str | None, str]


@dataclass(slots=True)
class _Dial:
    """One connection to ourselves."""

    host: str
    sock: socket.socket
    waits: bool = True
    """Whether it is neither open nor refused yet."""


class Diversion:
    """Looks every `seconds`. `is_used` says of an `ip:port` whether it is somebody's, `tell` whatever is new."""

    def __init__(
        self,
        loop: Loop,
        family: int,
        ports: tuple[int, int],
        seconds: float,
        is_used: Callable[[str], bool],
        tell: Callable[[bool], None],
    ) -> None:
        """`family` is the listening socket's: an IPv6 one takes both."""
        self._loop, self._family, self._ports, self._seconds = loop, family, ports, seconds
        self._is_used, self._tell = is_used, tell
        self._hosts = ("127.0.0.1", "::1") if family == socket.AF_INET6 else ("127.0.0.1",)
        self._dials: dict[Ends, _Dial] = {}
        self._answers: dict[str, bool] = {}
        self._known: bool | None = None
        self._timer: Timer | None = None

    def start(self, known: bool | None) -> None:
        """Look now, and again and again; `known` is what was told already."""
        self._known = known
        self._look()

    def stop(self) -> None:
        """Look no more. Harmless when it never did."""
        if self._timer:
            self._timer.cancel()
        for ends in list(self._dials):
            self._end(ends, None)

    def takes(self, fd: int) -> bool:
        """Whether an accepted connection is our own; it is closed then."""
        if not self._dials:
            return False
        try:
            ends = (address.peer(fd, self._family), address.local(fd, self._family))
        except OSError:
            return False
        if ends not in self._dials:
            return False
        os.close(fd)
        self._end(ends, True)
        return True

    def _look(self) -> None:
        self._timer = self._loop.call_later(self._seconds, self._look)
        for ends, dial in list(self._dials.items()):
            self._end(ends, False if dial.waits else None)
        for host in self._hosts:
            self._dial(host)

    def _dial(self, host: str) -> None:
        port = self._port(host)
        try:
            sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        except OSError:  # no descriptor is left, or there is no IPv6
            return
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)  # so that nothing is left of it
        error = sock.connect_ex((host, port))
        if error not in _PENDING:
            sock.close()
            if error in _NOBODY:
                self._answer(host, False)
            else:  # an address that this machine does not have is nobody's hold address
                self._answers.pop(host, None)
            return
        own = sock.getsockname()
        ends = (address.join(own[0], own[1]), address.join(host, port))
        self._dials[ends] = _Dial(host, sock)
        self._loop.register(sock.fileno(), select.EPOLLOUT, lambda _: self._opened(ends))

    def _port(self, host: str) -> int:
        """One that the rules are for; were it accepted too late to be known for ours, it would wake nobody."""
        for _ in range(TRIES):
            port = random.randint(*self._ports)
            if not self._is_used(address.join(host, port)):
                break
        return port

    def _opened(self, ends: Ends) -> None:
        dial = self._dials[ends]
        error = dial.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self._end(ends, False if error in _NOBODY else None)
        else:
            dial.waits = False
            self._loop.unregister(dial.sock.fileno())

    def _end(self, ends: Ends, diverted: bool | None) -> None:
        dial = self._dials.pop(ends)
        if dial.waits:
            self._loop.unregister(dial.sock.fileno())
        dial.sock.close()
        if diverted is not None:
            self._answer(dial.host, diverted)

    def _answer(self, host: str, diverted: bool) -> None:
        self._answers[host] = diverted
        verdict = all(self._answers.values())
        if verdict is not self._known and not (verdict and self._dials):  # one of two is not yet both
            self._known = verdict
            self._tell(verdict)
