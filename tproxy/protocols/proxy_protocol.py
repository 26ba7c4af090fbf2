"""The header of the PROXY protocol, version 2, by which Envoy says whose connection one is. No I/O here.

https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt, section 2.2: a signature, version and command, family, the
length of the rest, then both addresses and both ports. The command LOCAL means that Envoy speaks for itself.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass

from tproxy import address

LEAST, USUAL, LARGEST = 16, 52, 16 + 65_535
"""Bytes of a header: without addresses, with IPv6 addresses and nothing besides, at most."""
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_LOCAL, _PROXY = 0x20, 0x21
_FAMILIES = {0x11: (socket.AF_INET, 4), 0x21: (socket.AF_INET6, 16)}


@dataclass(frozen=True, slots=True)
class Header:
    """What a connection begins with."""

    size: int
    """Bytes; 0: there is no header."""
    client: str | None = None
    """`ip:port`, IPv6 in brackets; None where it does not say."""


NONE = Header(0)


def read(seen: bytes) -> Header | None:
    """The header that a connection begins with; None while more of it has to come, or of the connection at all."""
    if len(seen) < len(_SIGNATURE):
        return None if _SIGNATURE.startswith(seen) else NONE
    if not seen.startswith(_SIGNATURE):
        return NONE
    if len(seen) < LEAST:
        return None
    command, family, length = seen[12], seen[13], int.from_bytes(seen[14:16])
    if command not in (_LOCAL, _PROXY):
        return NONE
    if len(seen) < LEAST + length:
        return None
    return Header(LEAST + length, _client(family, seen[LEAST : LEAST + length]) if command == _PROXY else None)


def _client(family: int, addresses: bytes) -> str | None:
    kind, width = _FAMILIES.get(family, (0, 0))
    if not width or len(addresses) < 2 * width + 4:
        return None
    host = socket.inet_ntop(kind, addresses[:width])
    return address.join(host, int.from_bytes(addresses[2 * width : 2 * width + 2]))
