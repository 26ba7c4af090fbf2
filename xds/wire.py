"""Just enough of protobuf's encoding to write the fields that vary, and to read requests of 10,000 names.

Pure. Nothing here knows a message; `translate.py`, `responses.py` and `requests.py` do. The whole messages are
betterproto2's (`messages.py`), and the tests hold both equal.

Encoding: https://protobuf.dev/programming-guides/encoding/. A message's bytes followed by more fields is again a
message (the last of a singular field wins, repeated fields append, sub-messages merge).
"""

from __future__ import annotations

from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class MalformedError(ValueError):
    """The bytes are not a protobuf message."""


def varint(value: int) -> bytes:
    """Encode a non-negative integer."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, payload: bytes) -> bytes:
    """Encode a length-delimited field: bytes, or a message that is already encoded."""
    size = len(payload)
    if number < 16 and size < 0x4000:  # nearly all, without a call
        key = number << 3 | _BYTES
        return bytes((key, size) if size < 0x80 else (key, size & 0x7F | 0x80, size >> 7)) + payload
    return varint(number << 3 | _BYTES) + varint(size) + payload


def text(number: int, value: str) -> bytes:
    """Encode a string field; the empty string is encoded as well."""
    return field(number, value.encode())


def number(number: int, value: int) -> bytes:
    """Encode an unsigned integer field."""
    return varint(number << 3 | _VARINT) + varint(value)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the integer that begins at `at`, and where it ends."""
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise MalformedError("an integer does not end")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def read_field(data: bytes, at: int) -> tuple[int, bytes, int]:
    """Return the field that begins at `at`: its number, its payload, and where it ends.

    The number is 0 for a field that is not length-delimited: none that we read is anything else.
    """
    key = data[at]
    if key < 0x80 and at + 1 < len(data) and key & 7 == _BYTES and data[at + 1] < 0x80:
        length = data[at + 1]  # nearly every field: a key and a length of one byte each
        at += 2
    else:
        key, at = read_varint(data, at)
        if key & 7 != _BYTES:
            return 0, b"", _skip(data, at, key & 7)
        length, at = read_varint(data, at)
    end = at + length
    if end > len(data):
        raise MalformedError(f"field {key >> 3} is longer than its message")
    return key >> 3, data[at:end], end


def fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the length-delimited fields, each as number and payload."""
    at = 0
    while at < len(data):
        number, payload, at = read_field(data, at)
        yield number, payload


def _skip(data: bytes, at: int, kind: int) -> int:
    if kind == _VARINT:
        return read_varint(data, at)[1]
    if kind not in (_FIXED64, _FIXED32):
        raise MalformedError(f"wire type {kind} is not known")
    at += 8 if kind == _FIXED64 else 4
    if at > len(data):
        raise MalformedError("a number does not end")
    return at


def string(payload: bytes) -> str:
    """Decode a string field's payload."""
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        raise MalformedError("a string is not UTF-8") from error
