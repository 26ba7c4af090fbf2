"""Which requests wait on a held HTTP/2 connection, and since when. No I/O here; `gate.py` looks, and never reads.

Envoy sends every request to a service that sleeps over one connection, each when its client makes it, and a
RST_STREAM when its client gives up. RFC 9113 for frames.
"""

from __future__ import annotations

from tproxy.protocols.http2 import FRAME_HEADER, HEADERS, PREFACE, RST_STREAM, frame_head


class Calls:
    """What was seen of one connection, which nobody has read from."""

    __slots__ = ("_at", "_waiting", "last")

    def __init__(self) -> None:
        self._at = 0
        self._waiting: dict[int, float] = {}
        self.last: int | None = None
        """The stream of the latest request; None while there was none."""

    def look(self, seen: bytes, now: float) -> bool:
        """Take all bytes of the connection so far, or those that come first of very many; whether every request in
        them was given up by its client. Whoever comes after those has to be able to ask again."""
        if self._at == 0:
            if not seen.startswith(PREFACE):
                return False
            self._at = len(PREFACE)
        while (body := self._at + FRAME_HEADER) <= len(seen):
            length, kind, _, stream = frame_head(seen, self._at)
            if kind == HEADERS and stream > (self.last or 0):
                self._waiting[stream] = now
                self.last = stream
            elif kind == RST_STREAM:
                self._waiting.pop(stream, None)
            self._at = body + length
        return self.last is not None and not self._waiting and self._at >= len(seen)

    def waiting_since(self, moment: float) -> int | None:
        """The last stream that came no later than that; 0: all came later; None: there was none at all."""
        if self.last is None:
            return None
        return max((stream for stream, since in self._waiting.items() if since <= moment), default=0)
