"""HTTP/2 framing, as far as the holder needs it (RFC 9113 for frames, RFC 7541 for header blocks). Sans-IO."""

from __future__ import annotations

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

FRAME_HEADER = 9
"""Bytes before the payload of each frame."""
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, CONTINUATION = 0, 1, 3, 4, 6, 7, 9
ACK = END_STREAM = 0x1
END_HEADERS = 0x4
FRAME_SIZE_ERROR = 6
LARGEST_FRAME = 16_384


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return one frame."""
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def frame_head(data: bytes, at: int = 0) -> tuple[int, int, int, int]:
    """Return the payload length, kind, flags and stream of the frame that begins at `at`."""
    length, stream = int.from_bytes(data[at : at + 3]), int.from_bytes(data[at + 5 : at + FRAME_HEADER])
    return length, data[at + 3], data[at + 4], stream & 0x7FFF_FFFF


def header_block(headers: list[tuple[str, str]]) -> bytes:
    """Return literal header fields without indexing or Huffman coding (RFC 7541, 6.2.2): they need no dynamic table."""
    out = bytearray()
    for name, value in headers:
        out.append(0)
        for text in (name.encode(), value.encode()):
            out += _integer(len(text), 7) + text
    return bytes(out)


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
