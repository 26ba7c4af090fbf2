"""The address of a client, with which Envoy begins a connection: in a PROXY header or in its first request. Sans-IO.

PROXY protocol, version 2 (https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt, section 2.2): signature, version
and command, family, length of the rest, both addresses, both ports. With the command LOCAL, the connection is Envoy's
own.

Only the first request of a connection can be parsed alone: the header compression of later HTTP/2 requests depends on
the earlier ones (RFC 7541).
"""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass

import hpack

from tproxy import address
from tproxy.protocols.http2 import CONTINUATION, END_HEADERS, HEADERS, PREFACE, frames, header_fragment

SIZE_MIN, SIZE_USUAL, SIZE_MAX = 16, 52, 16 + 65_535
"""Bytes of a header without addresses, with IPv6 addresses only, and at most."""
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_LOCAL, _PROXY = 0x20, 0x21
_FAMILIES = {0x11: (socket.AF_INET, 4), 0x21: (socket.AF_INET6, 16)}
_FORWARDED_FOR = re.compile(rb"\r\nx-forwarded-for:([^\r]*)\r\n", re.IGNORECASE)


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
    if not unread.startswith(_SIGNATURE[: len(unread)]):
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


def forwarded_for(unread: bytes) -> str | None:
    """Return the client address that Envoy added to a request; None if the head has none or is incomplete.

    Envoy appends it; the addresses before it are claims of the client.
    """
    value = _http2_value(unread) if unread.startswith(PREFACE) else _http1_value(unread)
    try:
        return str(ipaddress.ip_address(value.rpartition(b",")[2].strip().decode("ascii")))
    except ValueError:
        return None


def _http1_value(unread: bytes) -> bytes:
    head, end, _ = unread.partition(b"\r\n\r\n")
    found = _FORWARDED_FOR.search(head + end)
    return found[1] if found else b""


def _http2_value(unread: bytes) -> bytes:
    try:
        headers = hpack.Decoder().decode(_first_block(unread), raw=True)
    except hpack.HPACKError:
        return b""
    return next((value for name, value, *_ in headers if name == b"x-forwarded-for"), b"")


def _first_block(unread: bytes) -> bytes:
    """Return the header block of the first request (RFC 9113, 6.2 and 6.10); empty if it is incomplete."""
    block = b""
    for kind, flags, _, begin, end in frames(unread, len(PREFACE)):
        if end > len(unread):
            break
        if kind == HEADERS:
            block = header_fragment(flags, unread[begin:end])
        elif kind == CONTINUATION:
            block += unread[begin:end]
        if kind in (HEADERS, CONTINUATION) and flags & END_HEADERS:
            return block
    return b""
