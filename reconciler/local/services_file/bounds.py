"""Bounds on a services file, checked on the stream of YAML events, before anything is built from it.

An event costs little and never recurses; nodes do both. Aliases cost nothing in the file and a lot where they are read,
so a value counts as often as an alias repeats it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

MAX_BYTES = 16 * 2**20
"""10,000 services take 1.5 MB."""
MAX_DEPTH = 32
MAX_VALUES = 500_000
"""A service takes 10 to 30."""
MAX_ENTRIES = 20_000
"""Of one list, and so of services."""
MAX_TEXT = 128 * 2**10
"""Linux passes no longer argument to a program."""


@dataclass(frozen=True, slots=True)
class Exceeded:
    """A bound that the file exceeds, where, and how to fix it. Lines and columns count from 1."""

    line: int
    column: int
    what: str


def read_bounded(path: Path) -> bytes:
    """Return the content, and one byte more than the bound where there is more. Raises `OSError`."""
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def too_large(content: bytes) -> str | None:
    """Return what is wrong with the size of a file."""
    if len(content) <= MAX_BYTES:
        return None
    return f"the file has more than {MAX_BYTES // 2**20} MiB; remove what does not belong into a services file"


@dataclass(slots=True)
class _Extent:
    """A value with what its aliases repeat: how many values it is, and how deep they are nested."""

    values: int = 1
    depth: int = 0
    entries: int = 0
    """Nodes directly in it; a mapping has two for each key."""

    def add(self, inner: _Extent) -> None:
        self.values += inner.values
        self.entries += 1
        self.depth = max(self.depth, inner.depth + 1)


def exceeded(events: Iterable[yaml.Event]) -> Exceeded | None:
    """Return the first bound that is exceeded. Raises `yaml.YAMLError` where this is not YAML."""
    named: dict[str, _Extent] = {}
    around: list[tuple[_Extent, str | None]] = [(_Extent(), None)]
    for event in events:
        if isinstance(event, yaml.AliasEvent):
            ended, anchor = named.get(str(event.anchor), _Extent()), None
        elif isinstance(event, yaml.ScalarEvent):
            ended, anchor = _Extent(), event.anchor
            if len(event.value) > MAX_TEXT:
                return _at(event, f"this text has {len(event.value)} characters; at most {MAX_TEXT} are read")
        elif isinstance(event, yaml.CollectionStartEvent):
            around.append((_Extent(), event.anchor))
            if len(around) > MAX_DEPTH:
                return _at(event, _DEEP)
            continue
        elif isinstance(event, yaml.CollectionEndEvent):
            ended, anchor = around.pop()
        else:
            continue
        if anchor:
            named[anchor] = ended
        around[-1][0].add(ended)
        if len(around) + ended.depth > MAX_DEPTH:
            return _at(event, _DEEP)
        if around[-1][0].entries > MAX_ENTRIES:
            return _at(event, f"this is entry {MAX_ENTRIES + 1} of a list; at most {MAX_ENTRIES} services are possible")
        if around[-1][0].values > MAX_VALUES:
            return _at(event, f"with its aliases, the file has more than {MAX_VALUES} values; use fewer aliases")
    return None


_DEEP = f"this is nested more than {MAX_DEPTH} deep; a services file needs 6 levels"


def _at(event: yaml.Event, what: str) -> Exceeded:
    mark = event.start_mark
    return Exceeded(mark.line + 1 if mark else 0, mark.column + 1 if mark else 0, what)
