"""Output in any locale: characters that its encoding lacks become ASCII that looks alike."""

from __future__ import annotations

import codecs
import sys

HANDLER = "zenvoy.ascii"
_ASCII = {
    "→": "->",
    "…": "...",
    "µ": "u",
    "≥": ">=",
}


def _look_alike(error: UnicodeError) -> tuple[str | bytes, int]:
    """Replace what cannot be encoded; anything without a likeness is written as an escape such as \\u20ac."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_ASCII.get(one) or one.encode("ascii", "backslashreplace").decode() for one in text), error.end


codecs.register_error(HANDLER, _look_alike)


def degrade_output() -> None:
    """Let no character end the process that writes it to standard output or standard error."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=HANDLER)


def encode(text: str, encoding: str) -> bytes:
    """Encode a text; never raises for a known encoding."""
    return text.encode(encoding, HANDLER)
