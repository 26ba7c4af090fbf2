"""Proxies that a test puts between two parts to break their communication."""

from __future__ import annotations

import json
import socket
import threading
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.e2e.harness import LOCAL

Change = Callable[[str, dict[str, Any]], None]
"""A change of the answer to a query."""


class Front:
    """An HTTP proxy that closes every connection while it, or the server behind it, is away."""

    def __init__(self, behind: str) -> None:
        self.away = False
        self.change: Change | None = None
        """Applied to JSON answers."""
        front = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                try:
                    status, body = front._answer(f"{behind}{self.path}")
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:
                    self.close_connection = True

            def log_message(self, format: str, *args: object) -> None:
                """Do not log requests."""

        self._server = ThreadingHTTPServer((LOCAL, 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.address = f"{LOCAL}:{self._server.server_address[1]}"
        self.url = f"http://{self.address}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, url: str) -> tuple[int, bytes]:
        if self.away:
            raise ConnectionError
        with urllib.request.urlopen(url, timeout=60) as answer:
            body = answer.read()
        if self.change:
            [query] = parse_qs(urlsplit(url).query)["query"]
            whole = json.loads(body)
            self.change(query, whole)
            body = json.dumps(whole).encode()
        return 200, body


class Line:
    """A proxy in the place of a Unix socket. Cutting it ends all connections and prevents new ones."""

    def __init__(self, path: Path) -> None:
        self._path, self._real = path, path.with_suffix(".behind")
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.used = threading.Event()
        """Set after the first connection."""
        path.rename(self._real)
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        self._begin(self._accept)

    def cut(self) -> None:
        self._path.unlink()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        for end in self._ends:
            end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for end in (self._listening, *self._ends):
            end.close()

    def restore(self) -> None:
        """Put the original socket back in its place."""
        self._real.rename(self._path)

    def _begin(self, target: Callable[..., None], *arguments: socket.socket) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            far.connect(str(self._real))
            self._ends += [near, far]
            self._begin(_pass_on, near, far)
            self._begin(_pass_on, far, near)
            self.used.set()


def _pass_on(one: socket.socket, other: socket.socket) -> None:
    try:
        while data := one.recv(65_536):
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)
    except OSError:
        return
