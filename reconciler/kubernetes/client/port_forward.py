"""A connection to a port of a pod, through the API server: the bytes of one WebSocket. Sans-IO.

Who may use it is decided by the API server (`pods/portforward`), and the pod's end is its loopback: what listens there
is reached by nobody else. Each port has two channels, for data and for an error; the first byte of each message is its
channel, and the first message of each channel names the port.
https://kubernetes.io/docs/tasks/access-application-cluster/port-forward-access-application-cluster/
"""

from __future__ import annotations

from http.client import HTTPException, HTTPResponse
from io import BytesIO
from typing import Any, cast

PROTOCOL = "v4.channel.k8s.io"
MOST_BYTES = 64_000_000
"""The readings of 10,000 services have a fifth of it."""
_DATA, _ERROR = 0, 1


class PortForwardError(Exception):
    """The connection failed, or what came is not an answer; for people."""


def request(path: str) -> bytes:
    """Return the message with which one path is asked for. Raises `PortForwardError` for what is not a path."""
    if not path.isascii() or not path.isprintable() or " " in path:
        raise PortForwardError(f"{path[:100]!r} is not a path")
    return bytes((_DATA,)) + f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()


class PortForwardResponse:
    """What came back so far."""

    def __init__(self) -> None:
        self._named: set[int] = set()
        self._data = bytearray()

    def receive(self, message: bytes) -> bool:
        """Take a message, and return whether the answer is whole. Raises `PortForwardError`."""
        channel, payload = message[0] if message else _DATA, message[1:]
        if channel not in self._named:
            self._named.add(channel)
            payload = payload[2:]
        if channel == _ERROR and payload:
            raise PortForwardError(payload[:300].decode(errors="replace"))
        if channel == _DATA:
            self._data += payload
        if len(self._data) > MOST_BYTES:
            raise PortForwardError(f"its answer has over {MOST_BYTES} bytes")
        return self._is_whole()

    def read(self) -> tuple[int, bytes]:
        """Return status and body. Raises `PortForwardError`."""
        response = HTTPResponse(cast(Any, _Received(bytes(self._data))))
        try:
            response.begin()
            return response.status, response.read()
        except (HTTPException, OSError, ValueError) as error:
            raise PortForwardError(f"its answer is not whole ({type(error).__name__})") from None

    def _is_whole(self) -> bool:
        head, end, body = self._data.partition(b"\r\n\r\n")
        if not end:
            return False
        lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        return bool(lengths) and lengths[0].strip().isdigit() and len(body) >= int(lengths[0])


class _Received(BytesIO):
    """Bytes in the place of the socket that `HTTPResponse` reads."""

    def makefile(self, *_: Any) -> _Received:
        return self
