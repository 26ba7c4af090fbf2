"""Health checks of `zenvoy up` that the loop itself answers, so that a holder whose loop hangs fails them."""

from __future__ import annotations

import os
import select
import socket
from pathlib import Path

from tproxy.io.listener import CannotListen
from tproxy.io.loop import Loop

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n"
MAX_CONNECTIONS = 16


class HealthSocket:
    """A Unix socket that answers each request with 200. Raises `CannotListen`."""

    def __init__(self, loop: Loop, path: Path) -> None:
        self._loop, self._path = loop, path
        self._clients: set[socket.socket] = set()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            path.unlink(missing_ok=True)
            self._socket.bind(str(path))
            os.chmod(path, 0o600)
        except OSError as error:
            self._socket.close()
            raise CannotListen(f"cannot listen on {path} for --health-socket: {error.strerror}") from error
        self._socket.listen(MAX_CONNECTIONS)
        loop.register(self._socket.fileno(), select.EPOLLIN, self._accept)

    def close(self) -> None:
        """Stop answering."""
        self._loop.unregister(self._socket.fileno())
        self._socket.close()
        for client in list(self._clients):
            self._end(client)
        self._path.unlink(missing_ok=True)

    def _accept(self, _events: int) -> None:
        try:
            client, _ = self._socket.accept()
        except OSError:
            return
        if len(self._clients) >= MAX_CONNECTIONS:
            client.close()
            return
        client.setblocking(False)
        self._clients.add(client)
        self._loop.register(client.fileno(), select.EPOLLIN, lambda _: self._answer(client))

    def _answer(self, client: socket.socket) -> None:
        """Read the request, then answer: closing with unread bytes resets the connection, which loses the answer."""
        try:
            if client.recv(4096):
                client.send(ANSWER)
        except OSError:
            pass
        self._end(client)

    def _end(self, client: socket.socket) -> None:
        self._loop.unregister(client.fileno())
        self._clients.remove(client)
        client.close()
