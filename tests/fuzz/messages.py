"""A conversation of several messages in one fuzz input."""

from __future__ import annotations

from collections.abc import Iterator

LENGTH_BYTES = 2
MAX_MESSAGES = 32


def split(data: bytes) -> Iterator[bytes]:
    """Yield the messages of an input: each is a big-endian length of two bytes and that many bytes, or the rest."""
    at = 0
    for _ in range(MAX_MESSAGES):
        if at + LENGTH_BYTES > len(data):
            return
        end = at + LENGTH_BYTES + int.from_bytes(data[at : at + LENGTH_BYTES])
        yield data[at + LENGTH_BYTES : end]
        at = end


def join(*messages: bytes) -> bytes:
    """Return the input that `split` takes apart into these messages."""
    return b"".join(len(message).to_bytes(LENGTH_BYTES) + message for message in messages)
