"""Words for people: which known word was probably meant, lists of words, numbers of things. Pure."""

from __future__ import annotations

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


def _plain(word: str) -> str:
    return word.lower().replace("-", "").replace("_", "")
