"""Mode tproxy: whether the rules divert connections here. The holder sees by dialling, itself, what they are for.

That takes no tool and no right. It dials the address that the reconciler makes hold addresses of. Such a connection is
known by both of its ends, which nobody else has while it is open, and gets no further than `takes`: it is no held
connection, and wakes nothing. An answer that says neither yes nor no (somebody else listens there, or accepting is
behind) leaves what was known before.
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
from tproxy.io.loop import Loop, Timer

LOOK_SECONDS = 30.0
HOST = "127.0.0.1"
TRIES = 8
"""Of a port that is no hold address in use."""
_RESET = struct.pack("ii", 1, 0)
_PENDING = (0, errno.EINPROGRESS)
_NOBODY = (errno.ECONNREFUSED, errno.ETIMEDOUT)


@dataclass(slots=True)
class _Dial:
    """One connection to ourselves."""

    sock: socket.socket
    ends: tuple[str | None, str]
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
        """`family` is the listening socket's."""
        self._loop, self._family, self._ports, self._seconds = loop, family, ports, seconds
        self._is_used, self._tell = is_used, tell
        self._dial: _Dial | None = None
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
        self._end(None)

    def takes(self, fd: int) -> bool:
        """Whether an accepted connection is our own; it is closed then."""
        if self._dial is None:
            return False
        try:
            ends = (address.peer(fd, self._family), address.local(fd, self._family))
        except OSError:
            return False
        if ends != self._dial.ends:
            return False
        os.close(fd)
        self._end(True)
        return True

    def _look(self) -> None:
        self._timer = self._loop.call_later(self._seconds, self._look)
        self._end(False if self._dial and self._dial.waits else None)
        port = self._port()
        try:
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        except OSError:  # no descriptor is left
            return
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)  # so that nothing is left of it
        error = sock.connect_ex((HOST, port))
        if error not in _PENDING:
            sock.close()
            if error in _NOBODY:
                self._answer(False)
            return
        own = sock.getsockname()
        self._dial = _Dial(sock, (address.join(own[0], own[1]), address.join(HOST, port)))
        self._loop.register(sock.fileno(), select.EPOLLOUT, self._opened)

    def _port(self) -> int:
        """One that the rules are for; were it accepted too late to be known for ours, it would wake nobody."""
        for _ in range(TRIES):
            port = random.randint(*self._ports)
            if not self._is_used(address.join(HOST, port)):
                break
        return port

    def _opened(self, _events: int) -> None:
        assert self._dial
        error = self._dial.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self._end(False if error in _NOBODY else None)
        else:
            self._dial.waits = False
            self._loop.unregister(self._dial.sock.fileno())

    def _end(self, diverted: bool | None) -> None:
        dial, self._dial = self._dial, None
        if dial is not None:
            if dial.waits:
                self._loop.unregister(dial.sock.fileno())
            dial.sock.close()
        if diverted is not None:
            self._answer(diverted)

    def _answer(self, diverted: bool) -> None:
        if diverted is not self._known:
            self._known = diverted
            self._tell(diverted)
