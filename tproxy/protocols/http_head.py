"""The head of the first HTTP request on a connection that nobody has read from, whichever HTTP it speaks. No I/O here.

Of a connection's requests only the first can be read alone: how HTTP/2 codes the next ones depends on it (RFC 7541).
"""

from __future__ import annotations

import ipaddress
import re

import hpack

from tproxy.protocols.http2 import CONTINUATION, END_HEADERS, FRAME_HEADER, HEADERS, PREFACE, frame_head

_PADDED, _PRIORITY = 0x8, 0x20
_FORWARDED_FOR = re.compile(rb"\r\nx-forwarded-for:([^\r]*)\r\n", re.IGNORECASE)


def forwarded_for(seen: bytes) -> str | None:
    """The address that Envoy saw a request come from; None where the head does not say, or is not all there.

    Envoy puts it last; those before it are whatever the client claims.
    """
    said = _said_h2(seen) if seen.startswith(PREFACE) else _said_h1(seen)
    try:
        return str(ipaddress.ip_address(said.rpartition(b",")[2].strip().decode("ascii")))
    except ValueError:
        return None


def _said_h1(seen: bytes) -> bytes:
    head, end, _ = seen.partition(b"\r\n\r\n")
    found = _FORWARDED_FOR.search(head + end)
    return found[1] if found else b""


def _said_h2(seen: bytes) -> bytes:
    try:
        headers = hpack.Decoder().decode(_first_block(seen), raw=True)
    except hpack.HPACKError:
        return b""
    return next((value for name, value, *_ in headers if name == b"x-forwarded-for"), b"")


def _first_block(seen: bytes) -> bytes:
    """The header block of the first request (RFC 9113, 6.2 and 6.10); empty while it is not all there."""
    at, block = len(PREFACE), b""
    while (body := at + FRAME_HEADER) <= len(seen):
        length, kind, flags, _ = frame_head(seen, at)
        if (end := body + length) > len(seen):
            break
        if kind == HEADERS:
            block = _fragment(flags, seen[body:end])
        elif kind == CONTINUATION:
            block += seen[body:end]
        if kind in (HEADERS, CONTINUATION) and flags & END_HEADERS:
            return block
        at = end
    return b""


def _fragment(flags: int, payload: bytes) -> bytes:
    """A HEADERS frame's part of the block, without what may stand around it."""
    begin, end = 0, len(payload)
    if flags & _PADDED and payload:
        begin, end = 1, end - payload[0]
    return payload[begin + 5 * bool(flags & _PRIORITY) : end]
