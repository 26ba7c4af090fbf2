"""The requests that are held on one HTTP/2 connection, and since when (RFC 9113). Sans-IO.

Envoy sends all requests to a sleeping service over one connection, each when its client makes it, and a RST_STREAM when
its client disconnects. The holder peeks at them and never reads them.
"""

from __future__ import annotations

from tproxy.protocols.http2 import HEADERS, PREFACE, RST_STREAM, frames


class HeldRequests:
    """The requests seen on a connection whose bytes are all unread."""

    __slots__ = ("_at", "_since", "last")

    def __init__(self) -> None:
        self._at = 0
        self._since: dict[int, float] = {}
        """By stream, the time when a request that was not cancelled was first seen."""
        self.last: int | None = None
        """The stream of the latest request; None if there was none."""

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
