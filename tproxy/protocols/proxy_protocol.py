"""The header of the PROXY protocol, version 2, with which Envoy names the client of a connection. Sans-IO.

https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt, section 2.2: signature, version and command, family, length
of the rest, both addresses, both ports. With the command LOCAL, the connection is Envoy's own.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass

from tproxy import address

SIZE_MIN, SIZE_USUAL, SIZE_MAX = 16, 52, 16 + 65_535
"""Bytes of a header without addresses, with IPv6 addresses only, and at most."""
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_LOCAL, _PROXY = 0x20, 0x21
_FAMILIES = {0x11: (socket.AF_INET, 4), 0x21: (socket.AF_INET6, 16)}


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """The header of one connection."""

    size: int
    """Bytes; 0 if the connection has no header."""
    client: str | None = None
    """`ip:port`, IPv6 in brackets; None if the header names no client."""


NONE = ProxyHeader(0)


def read_header(unread: bytes) -> ProxyHeader | None:
    """Return the header that a connection begins with; None if more bytes are needed."""
    if len(unread) < len(_SIGNATURE):
        return None if _SIGNATURE.startswith(unread) else NONE
    if not unread.startswith(_SIGNATURE):
        return NONE
    if len(unread) < SIZE_MIN:
        return None
    command, family, length = unread[12], unread[13], int.from_bytes(unread[14:16])
    if command not in (_LOCAL, _PROXY):
        return NONE
    if len(unread) < SIZE_MIN + length:
        return None
    addresses = unread[SIZE_MIN : SIZE_MIN + length]
    return ProxyHeader(SIZE_MIN + length, _client(family, addresses) if command == _PROXY else None)


def _client(family: int, addresses: bytes) -> str | None:
    kind, width = _FAMILIES.get(family, (0, 0))
    if not width or len(addresses) < 2 * width + 4:
        return None
    host = socket.inet_ntop(kind, addresses[:width])
    return address.join(host, int.from_bytes(addresses[2 * width : 2 * width + 2]))
