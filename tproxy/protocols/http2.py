"""Just enough HTTP/2 to say no: requests are answered with a 503, then GOAWAY. No I/O here.

GOAWAY names the last request that was answered. Those after it may safely be made again over another connection (RFC
9113, 6.8), which Envoy does by itself: it is how who came late goes on waiting.

RFC 9113 for frames, RFC 7541 for header blocks: what we send is literals without indexing and without Huffman coding,
so there is no dynamic table; of what we get only one thing is looked for, whether it is gRPC, whose clients show
`grpc-message` to people but of a bare 503 only the number.
"""

from __future__ import annotations

from urllib.parse import quote

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

FRAME_HEADER = 9
"""Bytes before each frame's payload."""
HEADERS, RST_STREAM, CONTINUATION = 1, 3, 9
_DATA, _SETTINGS, _PING, _GOAWAY = 0, 4, 6, 7
_ACK = _END_STREAM = 0x1
END_HEADERS = 0x4
_LARGEST = 16_384

# "application/grpc" as RFC 7541 appendix B codes it: a 5 bits, p 6, l 6, i 5, c 5, t 5, o 5, n 6, / 6, g 6, r 6.
_HUFFMAN = "00011 101011 101011 101000 00110 00100 00011 01001 00110 00111 101010 011000 100110 101100 101011 00100"
_BITS = _HUFFMAN.replace(" ", "")
GRPC_MARKS = (b"application/grpc", bytes(int(_BITS[at : at + 8], 2) for at in range(0, len(_BITS) // 8 * 8, 8)))


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def frame_head(data: bytes, at: int = 0) -> tuple[int, int, int, int]:
    """Of the frame that begins there: the length of its payload, its kind, its flags, its stream."""
    length, stream = int.from_bytes(data[at : at + 3]), int.from_bytes(data[at + 5 : at + FRAME_HEADER])
    return length, data[at + 3], data[at + 4], stream & 0x7FFF_FFFF


def _integer(value: int, prefix_bits: int) -> bytes:
    limit = (1 << prefix_bits) - 1
    if value < limit:
        return bytes((value,))
    value -= limit
    out = bytearray((limit,))
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    out.append(value)
    return bytes(out)


def header_block(headers: list[tuple[str, str]]) -> bytes:
    """Literal header fields without indexing, new names (RFC 7541, 6.2.2)."""
    out = bytearray()
    for name, value in headers:
        out.append(0)
        for text in (name.encode(), value.encode()):
            out += _integer(len(text), 7) + text
    return bytes(out)


class Refusing:
    """One connection's conversation: bytes in, bytes out. Requests up to the stream `last` are answered; None: those
    that come first."""

    def __init__(self, reason: str, retry_after_seconds: int, last: int | None = None) -> None:
        self._reason = reason
        self._last = last
        self._retry_after = str(retry_after_seconds)
        self._buffer = b""
        self._preface_seen = False
        self._headers: bytearray | None = None
        self._grpc = False
        self.last_stream = 0
        """The last that was answered."""

    def receive(self, data: bytes) -> bytes:
        """What to send upon this."""
        self._buffer += data
        out = bytearray()
        if not self._preface_seen:
            if len(self._buffer) < len(PREFACE):
                return b""
            self._buffer = self._buffer[len(PREFACE) :]
            self._preface_seen = True
            out += frame(_SETTINGS, 0, 0)
        while len(self._buffer) >= FRAME_HEADER:
            length, kind, flags, stream = frame_head(self._buffer)
            if length > _LARGEST:
                return bytes(out) + self.goaway(code=6)
            if len(self._buffer) < FRAME_HEADER + length:
                break
            payload = self._buffer[FRAME_HEADER : FRAME_HEADER + length]
            self._buffer = self._buffer[FRAME_HEADER + length :]
            out += self._frame(kind, flags, stream, payload)
        return bytes(out)

    @property
    def done(self) -> bool:
        """Whether everybody was answered who is to be: the rest is for GOAWAY."""
        return self._preface_seen and self.last_stream >= (1 if self._last is None else self._last)

    def goaway(self, code: int = 0) -> bytes:
        """No more requests after the last one that was answered."""
        return frame(_GOAWAY, 0, 0, self.last_stream.to_bytes(4) + code.to_bytes(4))

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        if kind == _SETTINGS and not flags & _ACK:
            return frame(_SETTINGS, _ACK, 0)
        if kind == _PING and not flags & _ACK:
            return frame(_PING, _ACK, 0, payload)
        if kind == HEADERS:
            self._headers = bytearray(payload)
        elif kind == CONTINUATION and self._headers is not None:
            self._headers += payload
        else:
            return b""
        late = self._last is not None and stream > self._last
        if late or not flags & END_HEADERS or stream <= self.last_stream:
            return b""
        block, self._headers = bytes(self._headers), None
        return self._answer(stream, block)

    def _answer(self, stream: int, block: bytes) -> bytes:
        self.last_stream = stream
        self._grpc = self._grpc or any(mark in block for mark in GRPC_MARKS)
        if self._grpc:
            # Trailers-only: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#responses
            status = [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "14")]
            said = [("grpc-message", quote(self._reason, safe=" :/()[],.'-")), ("retry-after", self._retry_after)]
            out = frame(HEADERS, END_HEADERS | _END_STREAM, stream, header_block(status + said))
        else:
            body = f"{self._reason}\n".encode()[: _LARGEST - 1]
            out = frame(HEADERS, END_HEADERS, stream, header_block(self._headers_of(len(body))))
            out += frame(_DATA, _END_STREAM, stream, body)
        # RFC 9113, 8.1 would allow RST_STREAM(NO_ERROR) to stop an upload; curl 7.88 then throws the answer away.
        return out

    def _headers_of(self, length: int) -> list[tuple[str, str]]:
        return [
            (":status", "503"),
            ("content-type", "text/plain; charset=utf-8"),
            ("content-length", str(length)),
            ("retry-after", self._retry_after),
        ]
