"""Mode tproxy: a periodic check that the rules redirect connections to the holder, by dialling a redirected port.

The check needs no tool and no privilege. It dials the IP address that hold addresses have. The accepted end is
recognized by both of its addresses, which no other connection has while this one is open. `takes` closes it, so it is
not held and wakes no service. If the result is unclear (another process listens there, or the holder accepts it too
late), the previous result stands.
"""

from __future__ import annotations

import errno
import os
import random
import select
import socket
from collections.abc import Callable, Container
from dataclasses import dataclass

from tproxy import address
from tproxy.io import tcp
from tproxy.io.loop import Loop, Timer

CHECK_SECONDS = 30.0
HOST = "127.0.0.1"
PORT_ATTEMPTS = 8
"""Attempts to find a port that no hold address uses."""
_PENDING = (0, errno.EINPROGRESS)
_NO_LISTENER = (errno.ECONNREFUSED, errno.ETIMEDOUT)


@dataclass(slots=True)
class _SelfDial:
    sock: socket.socket
    ends: tuple[str | None, str]
    pending: bool = True
    """True while it is neither connected nor refused."""


class SelfCheck:
    """Checks at once and every `seconds` whether rules redirect a range of ports to the holder.

    `assigned` are the hold addresses in use, `ip:port`.
    """

    def __init__(
        self,
        loop: Loop,
        ports: tuple[int, int],
        seconds: float,
        assigned: Container[str],
        on_result: Callable[[bool], None],
    ) -> None:
        self._loop, self._ports, self._seconds = loop, ports, seconds
        self._assigned, self._on_result = assigned, on_result
        self._dial: _SelfDial | None = None
        self._timer: Timer
        self._check()

    def stop(self) -> None:
        """Stop checking."""
        self._timer.cancel()
        self._finish(None)

    def takes(self, fd: int) -> bool:
        """Return whether an accepted connection comes from the check, and close it if so."""
        if self._dial is None:
            return False
        try:
            ends = (tcp.peer_address(fd), tcp.local_address(fd))
        except OSError:
            return False
        if ends != self._dial.ends:
            return False
        os.close(fd)
        self._finish(True)
        return True

    def _check(self) -> None:
        self._timer = self._loop.call_later(self._seconds, self._check)
        self._finish(False if self._dial and self._dial.pending else None)
        port = self._unused_port()
        try:
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        except OSError:  # no descriptor is left
            return
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, tcp.RESET_ON_CLOSE)  # leaves nothing in TIME_WAIT
        error = sock.connect_ex((HOST, port))
        if error not in _PENDING:
            sock.close()
            if error in _NO_LISTENER:
                self._on_result(False)
            return
        self._dial = _SelfDial(sock, (address.join(*sock.getsockname()), address.join(HOST, port)))
        self._loop.register(sock.fileno(), select.EPOLLOUT, self._on_answer)

    def _unused_port(self) -> int:
        """Return a port, preferably one that no service has: a dial that is recognized too late then wakes none."""
        for _ in range(PORT_ATTEMPTS):
            port = random.randint(*self._ports)
            if address.join(HOST, port) not in self._assigned:
                break
        return port

    def _on_answer(self, _events: int) -> None:
        assert self._dial
        error = self._dial.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self._finish(False if error in _NO_LISTENER else None)
        else:
            self._dial.pending = False
            self._loop.unregister(self._dial.sock.fileno())

    def _finish(self, redirected: bool | None) -> None:
        dial, self._dial = self._dial, None
        if dial is not None:
            if dial.pending:
                self._loop.unregister(dial.sock.fileno())
            dial.sock.close()
        if redirected is not None:
            self._on_result(redirected)
