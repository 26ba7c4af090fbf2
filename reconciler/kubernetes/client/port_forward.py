"""An HTTP request to a port of a pod, forwarded by the API server: the bytes of one WebSocket. Sans-IO.

The API server authorizes it (`pods/portforward`). The connection ends at the loopback of the pod. Each port has two
channels, for data and for errors; the first byte of each message is its channel, and the first message of each channel
contains the port number.
https://kubernetes.io/docs/tasks/access-application-cluster/port-forward-access-application-cluster/
"""

from __future__ import annotations

from http.client import HTTPException, HTTPResponse
from io import BytesIO
from typing import Any, cast

PROTOCOL = "v4.channel.k8s.io"
MAX_RESPONSE_BYTES = 64_000_000
"""Five times the size of the readings of 10,000 services."""
_DATA, _ERROR = 0, 1


class PortForwardError(Exception):
    """The connection failed, or the response is invalid; the message is for people."""


def request(path: str) -> bytes:
    """Return the message that requests a path. Raises `PortForwardError` if the path is invalid."""
    if not path.isascii() or not path.isprintable() or " " in path:
        raise PortForwardError(f"{path[:100]!r} is not a path")
    return bytes((_DATA,)) + f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()


class PortForwardResponse:
    """A response that is being received."""

    def __init__(self) -> None:
        self._named: set[int] = set()
        self._data = bytearray()

    def receive(self, message: bytes) -> bool:
        """Add a message, and return whether the response is complete. Raises `PortForwardError`."""
        channel, payload = message[0] if message else _DATA, message[1:]
        if channel not in self._named:
            self._named.add(channel)
            payload = payload[2:]
        if channel == _ERROR and payload:
            raise PortForwardError(payload[:300].decode(errors="replace"))
        if channel == _DATA:
            self._data += payload
        if len(self._data) > MAX_RESPONSE_BYTES:
            raise PortForwardError(f"the response exceeds {MAX_RESPONSE_BYTES} bytes")
        return self._is_whole()

    def read(self) -> tuple[int, bytes]:
        """Return the status and the body. Raises `PortForwardError`."""
        response = HTTPResponse(cast(Any, _Received(bytes(self._data))))
        try:
            response.begin()
            return response.status, response.read()
        except (HTTPException, OSError, ValueError) as error:
            raise PortForwardError(f"incomplete response ({type(error).__name__})") from None

    def _is_whole(self) -> bool:
        head, end, body = self._data.partition(b"\r\n\r\n")
        if not end:
            return False
        lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        return bool(lengths) and lengths[0].strip().isdigit() and len(body) >= int(lengths[0])


class _Received(BytesIO):
    """Received bytes in place of the socket that `HTTPResponse` reads."""

    def makefile(self, *_: Any) -> _Received:
        return self
