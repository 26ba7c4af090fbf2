"""Who waits on a connection, as Envoy tells whomever it connects to: in the request, or before all else.

Looks at what nobody has read yet, and leaves it there.
"""

from __future__ import annotations

import socket

from tproxy.protocols import proxy_protocol
from tproxy.protocols.http_head import forwarded_for
from tproxy.protocols.proxy_protocol import Header

_HEAD_BYTES = 16_384


def peek(fd: int, most: int = _HEAD_BYTES) -> bytes:
    """What nobody has read yet of a connection, which stays unread."""
    view = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fd)
    try:
        return view.recv(most, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError:
        return b""
    finally:
        view.detach()


def header(fd: int) -> Header | None:
    """What a connection begins with, where Envoy speaks the PROXY protocol; None while it has yet to come."""
    seen = peek(fd, proxy_protocol.USUAL)
    found = proxy_protocol.read(seen)
    if found is None and len(seen) == proxy_protocol.USUAL:
        found = proxy_protocol.read(peek(fd, proxy_protocol.LARGEST))
    return found


def sender(fd: int, has_header: bool) -> str | None:
    """Who waits there: `ip:port` by its header, else `ip` by its request; None where that does not say, or not yet."""
    if has_header:
        found = header(fd)
        return found.client if found else None
    return forwarded_for(peek(fd))
