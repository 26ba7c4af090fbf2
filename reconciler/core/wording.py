"""Words for people: which known word was probably meant, lists of words, numbers of things, text of others. Pure."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches

LONGEST_GUESSED = 100
"""Characters: to compare takes time that grows with their square."""


def meant(word: str, known: Iterable[str]) -> str | None:
    """The known word that `word` probably is, whatever its case, hyphens and underscores."""
    if len(word) > LONGEST_GUESSED:
        return None
    plain = {_plain(name): name for name in known}
    close = get_close_matches(_plain(word), plain, n=1, cutoff=0.7)
    return plain[close[0]] if close else None


def listed(words: Iterable[str], last: str = "or") -> str:
    """`a, b or c`."""
    *others, final = words
    return f"{', '.join(others)} {last} {final}" if others else final


def counted(number: int, thing: str) -> str:
    """`1 target`, `2 targets`; the plural of `thing` is regular."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def printable(text: str) -> str:
    """Return the text with everything escaped, as in `\\x1b`, that a terminal would obey or not show.

    Those are control characters with line breaks, C1 controls, marks of writing direction, characters without width,
    and bytes that are not UTF-8. Text that was returned before is returned unchanged.
    """
    if text.isprintable():
        return text
    return "".join(character if _is_shown(character) else _escaped(character) for character in text)


def printable_json(text: str) -> str:
    """Return a JSON text with the same meaning in which all that `printable` escapes is escaped as JSON does it."""
    if text.isascii():  # JSON itself escapes control characters
        return text.replace("\x7f", "\\u007f")
    return "".join(character if _is_shown(character) else json.dumps(character)[1:-1] for character in text)


def _is_shown(character: str) -> bool:
    return character.isprintable() or unicodedata.category(character) == "Zs"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _plain(word: str) -> str:
    return word.lower().replace("-", "").replace("_", "")
