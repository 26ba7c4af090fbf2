"""Words for people: durations, lists, plurals, errors, the closest known word, and text that is safe to print. Pure."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches

MAX_MATCHED_LENGTH = 100
"""In characters; the time of a comparison grows with their square."""
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(h|ms|m|s)")
_DURATION = re.compile(rf"(?:{_DURATION_PART.pattern})+")
_UNIT_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def parse_duration(text: str) -> float | None:
    """Return the seconds of a duration such as `5m`, `1h30m`, or `500ms`, or None if it is not valid.

    A plain `0` needs no unit.
    """
    if text == "0":
        return 0.0
    if not _DURATION.fullmatch(text):
        return None
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in _DURATION_PART.findall(text))


def format_duration(seconds: float) -> str:
    """Return a duration such as `1h30m`, in whole seconds or, below one, in milliseconds."""
    if seconds < 1:
        return f"{max(0.0, seconds) * 1000:.0f}ms"
    whole = round(seconds)
    units = ((whole // 3600, "h"), (whole // 60 % 60, "m"), (whole % 60, "s"))
    return "".join(f"{number}{unit}" for number, unit in units if number)


def error_text(error: Exception) -> str:
    """Return what an error says; many time-outs and closed connections say nothing."""
    return str(error) or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)


def paused_effect(state: str, until: str = "`zenvoy resume`") -> str:
    """Return what a pause means for a service in this state; `until` ends the pause."""
    if state == "ScaledToZero":
        return f"sleeps until a client or `zenvoy wake` wakes it, and then stays awake until {until}"
    return f"stays awake until {until}"


def closest_match(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that is closest to `word`, ignoring case, hyphens, and underscores; None if none is."""
    if len(word) > MAX_MATCHED_LENGTH:
        return None
    plain = {_plain(name): name for name in known}
    close = get_close_matches(_plain(word), plain, n=1, cutoff=0.7)
    return plain[close[0]] if close else None


def join_words(words: Iterable[str], last: str = "or") -> str:
    """Return `a, b or c`."""
    *others, final = words
    return f"{', '.join(others)} {last} {final}" if others else final


def pluralize(number: int, noun: str) -> str:
    """Return `1 target` or `2 targets`; the plural of the noun must be regular."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def printable(text: str) -> str:
    """Return the text with each character escaped, as in `\\x1b`, that a terminal would interpret or not show.

    These are control characters including line breaks, C1 controls, marks of writing direction, characters without
    width, and bytes that are not UTF-8. The function is idempotent.
    """
    if text.isprintable():
        return text
    shown = (one if _is_shown(one) else one.encode("unicode_escape").decode() for one in text)
    return "".join(shown)


def printable_json(text: str) -> str:
    """Return an equivalent JSON text in which the characters that `printable` escapes have JSON escapes."""
    if text.isascii():  # JSON already escapes the other control characters
        return text.replace("\x7f", "\\u007f")
    return "".join(character if _is_shown(character) else json.dumps(character)[1:-1] for character in text)


def _is_shown(character: str) -> bool:
    return character.isprintable() or unicodedata.category(character) == "Zs"


def _plain(word: str) -> str:
    return word.lower().replace("-", "").replace("_", "")
