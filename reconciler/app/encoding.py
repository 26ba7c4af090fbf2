"""Output in any locale: characters that an encoding lacks are replaced by similar ASCII."""

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
    """Replace what cannot be encoded, by similar ASCII or an escape such as \\u20ac."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_ASCII.get(one) or one.encode("ascii", "backslashreplace").decode() for one in text), error.end


codecs.register_error(HANDLER, _look_alike)


def degrade_output() -> None:
    """Replace, in standard output and standard error, characters that cannot be encoded."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=HANDLER)


def encode(text: str, encoding: str) -> bytes:
    """Encode a text; never raises for a known encoding."""
    return text.encode(encoding, HANDLER)
