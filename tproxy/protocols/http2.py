"""HTTP/2 framing, as far as the holder needs it (RFC 9113), and the requests that are held on one connection. Sans-IO.

Envoy sends all requests to a sleeping service over one connection, each when its client makes it, and a RST_STREAM when
its client disconnects. The holder peeks at them and never reads them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

FRAME_HEADER = 9
"""Bytes before the payload of each frame."""
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, CONTINUATION = 0, 1, 3, 4, 6, 7, 9
ACK = END_STREAM = 0x1
END_HEADERS = 0x4
_PADDED, _PRIORITY = 0x8, 0x20
FRAME_SIZE_ERROR = 6
LARGEST_FRAME = 16_384


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return one frame."""
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def frames(data: bytes, at: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield kind, flags, stream, and payload begin and end of each frame from `at`; the last may be incomplete."""
    while (begin := at + FRAME_HEADER) <= len(data):
        length, kind, flags = int.from_bytes(data[at : at + 3]), data[at + 3], data[at + 4]
        stream = int.from_bytes(data[at + 5 : begin]) & 0x7FFF_FFFF
        at = begin + length
        yield kind, flags, stream, begin, at


def header_fragment(flags: int, payload: bytes) -> bytes:
    """Return the part of a HEADERS frame that belongs to the block, without padding and priority."""
    begin, end = 0, len(payload)
    if flags & _PADDED and payload:
        begin, end = 1, end - payload[0]
    return payload[begin + 5 * bool(flags & _PRIORITY) : end]


@dataclass(slots=True, eq=False)
class HeldRequests:
    """The requests seen on a connection whose bytes are all unread."""

    last: int | None = None
    """The stream of the latest request; None if there was none."""
    _at: int = 0
    _since: dict[int, float] = field(default_factory=dict)
    """By stream, the time when a request that was not cancelled was first seen."""

    def update(self, unread: bytes, now: float) -> bool:
        """Take the unread bytes, or the first part of very many, and return whether all requests are cancelled.

        A request that may follow after those bytes must be able to repeat on another connection.
        """
        if self._at == 0:
            if not unread.startswith(PREFACE):
                return False
            self._at = len(PREFACE)
        for kind, _, stream, _, end in frames(unread, self._at):
            if kind == HEADERS and stream > (self.last or 0):
                self._since[stream] = now
                self.last = stream
            elif kind == RST_STREAM:
                self._since.pop(stream, None)
            self._at = end
        return self.last is not None and not self._since and self._at >= len(unread)

    def last_since(self, moment: float) -> int | None:
        """Return the last stream first seen at or before `moment`; 0 if all are newer, None if there was no request."""
        if self.last is None:
            return None
        return max((stream for stream, since in self._since.items() if since <= moment), default=0)
