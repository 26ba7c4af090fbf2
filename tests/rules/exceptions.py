"""Lists of what does not follow a rule yet. A list may only shrink.

Each rule has one file in `tests/rules/exceptions`, with one name per line. Names are those of classes, functions, tests
and files without their folders, so that a file can move. `python -m tests.rules.exceptions` removes the lines that are
no longer needed; it adds none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).parent / "exceptions"


def listed(rule: str) -> Counter[str]:
    """Return the known violations of a rule; a name that occurs twice is listed twice."""
    path = FOLDER / f"{rule}.txt"
    return Counter(path.read_text().splitlines()) if path.exists() else Counter()


def compare(rule: str, violations: Iterable[str]) -> None:
    """Fail for a violation that is not listed, and for a listed one that is gone."""
    found, known = Counter(violations), listed(rule)
    new, gone = sorted((found - known).elements()), sorted((known - found).elements())
    assert not new, f"{rule}: fix {new}"
    assert not gone, f"{rule}: fixed; run python -m tests.rules.exceptions to remove {gone}"


def prune() -> None:
    """Remove the lines that no rule needs any longer."""
    from tests.rules import check

    for rule, violations in check.RULES.items():
        path = FOLDER / f"{rule}.txt"
        if kept := sorted((listed(rule) & Counter(violations())).elements()):
            path.write_text("".join(f"{name}\n" for name in kept))
        else:
            path.unlink(missing_ok=True)


if __name__ == "__main__":
    prune()
