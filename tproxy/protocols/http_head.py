"""The head of the first HTTP request on a connection, in either HTTP version. Sans-IO.

Only the first request of a connection can be parsed alone: the header compression of later HTTP/2 requests depends on
the earlier ones (RFC 7541).
"""

from __future__ import annotations

import ipaddress
import re

import hpack

from tproxy.protocols.http2 import CONTINUATION, END_HEADERS, HEADERS, PREFACE, frames, header_fragment

_FORWARDED_FOR = re.compile(rb"\r\nx-forwarded-for:([^\r]*)\r\n", re.IGNORECASE)


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
