"""The HTTP response to a client that is refused: a 503 with the reason, whichever HTTP version it speaks. Sans-IO.

HTTP/2 requests are answered one by one, followed by GOAWAY with the last stream that was answered. Clients may safely
repeat later requests over another connection (RFC 9113, 6.8), and Envoy does: recent requests continue to be held.

Two things are read from HTTP/2 requests. If they are gRPC, the reason is in `grpc-message`: their clients show it to
people, but only the status code of a plain 503. If the method is HEAD, the response has no body, which Envoy would
take for an error.
"""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import quote

import hpack

from tproxy.protocols import http2
from tproxy.protocols.http2 import frame

MAX_DECODED_BYTES = 4096
"""The longest header block that is decoded. After a longer one, later requests of the connection cannot be."""
GRPC_MARKS = (b"application/grpc", bytes.fromhex("1d75d0620d263d4c4d6564"))
"""The content type of gRPC as it occurs in header blocks: literal, and in the Huffman code of RFC 7541, appendix B."""


class RefusalResponse:
    """The response to one client: bytes in, bytes out.

    HTTP/2 requests up to stream `last` are answered; if `last` is None, the first ones to arrive.
    """

    def __init__(self, reason: str, retry_after_seconds: int, last: int | None = None) -> None:
        self._reason = " ".join(reason.split())
        self._retry_after_seconds = retry_after_seconds
        self._last = last
        self._buffer = b""
        self._is_http2 = False
        self._headers: bytearray | None = None
        self._encoder = hpack.Encoder()
        self._decoder: hpack.Decoder | None = hpack.Decoder()
        self._grpc = False
        self.last_stream = 0
        """The last stream that was answered."""
        self.done = False
        """True once the response is complete, so that writing can be shut down."""

    def receive(self, data: bytes) -> bytes:
        """Take bytes from the client and return the bytes to send."""
        if self.done:
            return b""
        self._buffer += data
        out = bytearray()
        if not self._is_http2:
            if not self._buffer.startswith(http2.PREFACE):
                if http2.PREFACE.startswith(self._buffer):
                    return b""
                self.done = True
                return http1_response(self._reason, self._retry_after_seconds, self._buffer.startswith(b"HEAD "))
            self._buffer = self._buffer[len(http2.PREFACE) :]
            self._is_http2 = True
            out += frame(http2.SETTINGS, 0, 0)
        out += self._on_frames()
        if self.last_stream >= (1 if self._last is None else self._last):
            self.done = True
            out += self._goaway()
        return bytes(out)

    def end(self) -> bytes:
        """Return the bytes to send before closing, if the client sends nothing more."""
        return self._goaway() if self._is_http2 and not self.done else b""

    def _on_frames(self) -> bytes:
        out, at = bytearray(), 0
        for kind, flags, stream, begin, end in http2.frames(self._buffer, 0):
            if end - begin > http2.LARGEST_FRAME:
                out += self._goaway(http2.FRAME_SIZE_ERROR)
                break
            if end > len(self._buffer):
                break
            out += self._on_frame(kind, flags, stream, self._buffer[begin:end])
            at = end
        self._buffer = self._buffer[at:]
        return bytes(out)

    def _goaway(self, code: int = 0) -> bytes:
        """Return the frame that rejects all requests after the last one that was answered."""
        return frame(http2.GOAWAY, 0, 0, self.last_stream.to_bytes(4) + code.to_bytes(4))

    def _on_frame(self, kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        if kind == http2.SETTINGS and not flags & http2.ACK:
            return frame(http2.SETTINGS, http2.ACK, 0)
        if kind == http2.PING and not flags & http2.ACK:
            return frame(http2.PING, http2.ACK, 0, payload)
        if kind == http2.HEADERS:
            self._headers = bytearray(http2.header_fragment(flags, payload))
        elif kind == http2.CONTINUATION and self._headers is not None:
            self._headers += payload
        else:
            return b""
        is_late = self._last is not None and stream > self._last
        if is_late or not flags & http2.END_HEADERS:
            return b""
        block, self._headers = bytes(self._headers), None
        is_head = self._is_head(block)
        return b"" if stream <= self.last_stream else self._respond(stream, block, is_head)

    def _is_head(self, block: bytes) -> bool:
        """Return whether the method of a request is HEAD, as far as that is known."""
        if self._decoder is not None and len(block) <= MAX_DECODED_BYTES:
            with suppress(hpack.HPACKError):
                headers = self._decoder.decode(block, raw=True)
                return any(header == (b":method", b"HEAD") for header in headers)
        self._decoder = None
        return False

    def _respond(self, stream: int, block: bytes, is_head: bool) -> bytes:
        self.last_stream = stream
        self._grpc = self._grpc or any(mark in block for mark in GRPC_MARKS)
        retry_after = ("retry-after", str(self._retry_after_seconds))
        if self._grpc:
            # Trailers-only: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#responses
            status = [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "14")]
            message = ("grpc-message", quote(self._reason, safe=" :/()[],.'-"))
            block = self._encoder.encode([*status, message, retry_after], huffman=False)
            return frame(http2.HEADERS, http2.END_HEADERS | http2.END_STREAM, stream, block)
        body = f"{self._reason}\n".encode()[: http2.LARGEST_FRAME - 1]
        content = [("content-type", "text/plain; charset=utf-8"), ("content-length", str(len(body)))]
        block = self._encoder.encode([(":status", "503"), *content, retry_after], huffman=False)
        if is_head:
            return frame(http2.HEADERS, http2.END_HEADERS | http2.END_STREAM, stream, block)
        # RFC 9113, 8.1 would allow RST_STREAM(NO_ERROR) to stop an upload; curl 7.88 then discards the response.
        headers = frame(http2.HEADERS, http2.END_HEADERS, stream, block)
        return headers + frame(http2.DATA, http2.END_STREAM, stream, body)


def http1_response(reason: str, retry_after_seconds: int, is_head: bool = False) -> bytes:
    """Return a complete HTTP/1.1 response (RFC 9112), without its body for a HEAD request."""
    body = f"{reason}\n".encode()
    lines = (
        "HTTP/1.1 503 Service Unavailable",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
        f"Retry-After: {retry_after_seconds}",
        "Connection: close",
    )
    return "\r\n".join((*lines, "", "")).encode() + (b"" if is_head else body)
