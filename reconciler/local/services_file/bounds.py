"""Limits on a services file, checked on the stream of YAML events before nodes are built.

Events are cheap and do not recurse. Aliases are short in the file and expensive when read, so a value counts once for
each alias that repeats it.
"""

from __future__ import annotations

import errno
import os
import stat
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
"""The most entries of one list, and so the most services."""
MAX_TEXT = 128 * 2**10
"""The longest argument that Linux passes to a program."""


@dataclass(frozen=True, slots=True)
class Exceeded:
    """A limit that the file exceeds, with its place and the fix. Lines and columns count from 1."""

    line: int
    column: int
    what: str


def read_bounded(path: Path) -> bytes:
    """Return the content, of which one byte more than the limit is read. Raises `OSError`.

    A pipe of the shell, such as `/dev/stdin`, is read to its end; a named pipe without a writer would block forever.
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        is_pipe = stat.S_ISFIFO(os.fstat(file.fileno()).st_mode)
        if is_pipe and os.path.exists(os.path.realpath(path)):
            raise OSError(errno.EINVAL, "a named pipe; use a regular file")
        os.set_blocking(file.fileno(), True)
        return file.read(MAX_BYTES + 1)


def too_large(content: bytes) -> str | None:
    """Return the problem with the size of a file, if any."""
    if len(content) <= MAX_BYTES:
        return None
    return f"the file is larger than {MAX_BYTES // 2**20} MiB; remove what does not belong to it"


@dataclass(slots=True)
class _Extent:
    """The size of a value, including what aliases repeat: the number of values, and their depth."""

    values: int = 1
    depth: int = 0
    entries: int = 0
    """Nodes directly in it; a mapping has two for each key."""

    def add(self, inner: _Extent) -> None:
        self.values += inner.values
        self.entries += 1
        self.depth = max(self.depth, inner.depth + 1)


def exceeded(events: Iterable[yaml.Event]) -> Exceeded | None:
    """Return the first limit that is exceeded. Raises `yaml.YAMLError`."""
    named: dict[str, _Extent] = {}
    around: list[tuple[_Extent, str | None]] = [(_Extent(), None)]
    for event in events:
        if isinstance(event, yaml.AliasEvent):
            ended, anchor = named.get(str(event.anchor), _Extent()), None
        elif isinstance(event, yaml.ScalarEvent):
            ended, anchor = _Extent(), event.anchor
            if len(event.value) > MAX_TEXT:
                return _at(event, f"this text has {len(event.value)} characters; use at most {MAX_TEXT}")
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
            return _at(event, f"this is entry {MAX_ENTRIES + 1} of a list; use at most {MAX_ENTRIES} services")
        if around[-1][0].values > MAX_VALUES:
            return _at(event, f"with its aliases, the file has more than {MAX_VALUES} values; use fewer aliases")
    return None


_DEEP = f"nested more than {MAX_DEPTH} levels deep; use at most 6"


def _at(event: yaml.Event, what: str) -> Exceeded:
    mark = event.start_mark
    return Exceeded(mark.line + 1 if mark else 0, mark.column + 1 if mark else 0, what)
