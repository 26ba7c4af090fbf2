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
_DEEP = f"nested more than {MAX_DEPTH} levels deep; use at most 6"
MAX_VALUES = 500_000
"""A service takes 10 to 30."""
MAX_ENTRIES = 20_000
"""The most entries of one list, and so the most services."""
MAX_TEXT = 128 * 2**10
"""The longest argument that Linux passes to a program."""


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


def exceeded(events: Iterable[yaml.Event]) -> tuple[str, yaml.Event] | None:
    """Return the first limit that is exceeded, with the fix and the place. Raises `yaml.YAMLError`."""
    named: dict[str, _Extent] = {}
    around: list[tuple[_Extent, str | None]] = [(_Extent(), None)]
    for event in events:
        if isinstance(event, yaml.AliasEvent):
            ended, anchor = named.get(str(event.anchor), _Extent()), None
        elif isinstance(event, yaml.ScalarEvent):
            ended, anchor = _Extent(), event.anchor
            if len(event.value) > MAX_TEXT:
                return f"this text has {len(event.value)} characters; use at most {MAX_TEXT}", event
        elif isinstance(event, yaml.CollectionStartEvent):
            around.append((_Extent(), event.anchor))
            if len(around) > MAX_DEPTH:
                return _DEEP, event
            continue
        elif isinstance(event, yaml.CollectionEndEvent):
            ended, anchor = around.pop()
        else:
            continue
        if anchor:
            named[anchor] = ended
        around[-1][0].add(ended)
        if len(around) + ended.depth > MAX_DEPTH:
            return _DEEP, event
        if around[-1][0].entries > MAX_ENTRIES:
            return f"this is entry {MAX_ENTRIES + 1} of a list; use at most {MAX_ENTRIES} services", event
        if around[-1][0].values > MAX_VALUES:
            return f"with its aliases, the file has more than {MAX_VALUES} values; use fewer aliases", event
    return None
