"""Health of the holder, answered by its own loop: a holder whose loop hangs does not answer.

Counterparts: the supervisor of `zenvoy up`, which asks at the Unix socket, and `metrics.py`, for its HTTP port.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from pathlib import Path

from tproxy.io.loop import Loop

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n"
MOST_CONNECTIONS = 16
ANSWER_SECONDS = 2.0


class HealthSocket:
    """A Unix socket that answers each request with 200. Raises `OSError` when it cannot be made."""

    def __init__(self, loop: Loop, path: Path) -> None:
        self._loop, self._path = loop, path
        self._asking: dict[int, socket.socket] = {}
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(path))
        os.chmod(path, 0o600)
        self._socket.listen(MOST_CONNECTIONS)
        loop.register(self._socket.fileno(), select.EPOLLIN, self._accept)

    def close(self) -> None:
        """Stop answering."""
        self._loop.unregister(self._socket.fileno())
        self._socket.close()
        for descriptor in list(self._asking):
            self._end(descriptor)
        self._path.unlink(missing_ok=True)

    def _accept(self, _events: int) -> None:
        try:
            asking, _ = self._socket.accept()
        except OSError:
            return
        if len(self._asking) >= MOST_CONNECTIONS:
            asking.close()
            return
        asking.setblocking(False)
        descriptor = asking.fileno()
        self._asking[descriptor] = asking
        self._loop.register(descriptor, select.EPOLLIN, lambda _: self._answer(descriptor))

    def _answer(self, descriptor: int) -> None:
        """Read the request first: closing with unread bytes resets the connection, and the answer is lost."""
        asking = self._asking[descriptor]
        try:
            if asking.recv(4096):
                asking.send(ANSWER)
        except OSError:
            pass
        self._end(descriptor)

    def _end(self, descriptor: int) -> None:
        self._loop.unregister(descriptor)
        self._asking.pop(descriptor).close()


def loop_answers(loop: Loop, seconds: float = ANSWER_SECONDS) -> bool:
    """Return whether the loop makes a call that another thread asks for in time."""
    called = threading.Event()
    loop.call_soon_threadsafe(called.set)
    return called.wait(seconds)
