"""Who an HTTP/1 request that waits comes from: Envoy tells it to whom it sends the request. Reads nothing away."""

from __future__ import annotations

import ipaddress
import re
import socket

_HEAD_BYTES = 16_384
_FORWARDED_FOR = re.compile(rb"\r\nx-forwarded-for:([^\r]*)\r\n", re.IGNORECASE)


def peek(fd: int, most: int = _HEAD_BYTES) -> bytes:
    """What nobody has read yet of a connection, which stays unread."""
    view = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fd)
    try:
        return view.recv(most, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError:
        return b""
    finally:
        view.detach()


def forwarded_for(request: bytes) -> str | None:
    """The address that Envoy saw a request come from; None where the head does not say.

    Envoy puts it last; those before it are whatever the client claims.
    """
    head, end, _ = request.partition(b"\r\n\r\n")
    found = _FORWARDED_FOR.search(head + end)
    if found is None:
        return None
    try:
        return str(ipaddress.ip_address(found[1].rpartition(b",")[2].strip().decode("ascii")))
    except ValueError:
        return None
