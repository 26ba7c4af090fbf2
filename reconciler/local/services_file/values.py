"""Typed reading of YAML nodes, which keep their place in the file for messages.

A mistake is recorded as a problem, not raised; the value is then None or empty. The nodes are those of PyYAML's node
graph, the last stage with line numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from textwrap import shorten
from typing import TypeVar

import yaml

from reconciler.core.address import Address
from reconciler.core.reasons import Problem
from reconciler.core.text import closest_match, join_words, parse_duration
from reconciler.core.validation import MIN_SECONDS, NO_MEANINGS, choice_problem, duration_problem
from reconciler.local.services_file.model import Problems

_TAG = "tag:yaml.org,2002:"
_SURROGATE = re.compile("[\ud800-\udfff]")
"""Half of a character, which UTF-8 cannot encode."""
_WHOLE = re.compile("0|[1-9][0-9]{0,17}")
"""A whole number. With leading zeros, it is octal for some readers of YAML. Python refuses thousands of digits."""
_Word = TypeVar("_Word", bound=StrEnum)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Value:
    """One node of the file, with its place."""

    node: yaml.Node
    where: str
    problems: Problems

    @property
    def line(self) -> int:
        return int(self.node.start_mark.line) + 1

    @property
    def shown(self) -> str:
        """The value, for messages."""
        if isinstance(self.node, yaml.ScalarNode):
            return "nothing" if self._is("null") and not self.node.value else repr(shorten(self.node.value, 60))
        return "a list" if isinstance(self.node, yaml.SequenceNode) else "a mapping"

    def wrong(self, what: str) -> None:
        """Record a problem of this value."""
        self.problems.add(what, self.node.start_mark, self.where)

    def missing(self, what: str) -> None:
        """Record that this value is valid, and that what it names is missing or not accessible on this machine."""
        self.problems.add(what, self.node.start_mark, self.where, is_missing=True)

    def accepts(self, problem: Problem | None) -> bool:
        """Record a problem that a rule of `core.validation` found; return whether there is none."""
        if problem:
            self.wrong(f"{problem.message}; {problem.remedy}")
        return problem is None

    def field(self, name: str) -> Value:
        """Return the place of a field that is missing."""
        return Value(self.node, self._at(name), self.problems)

    def lacks(self, name: str, example: str) -> None:
        """Record that a required field is missing."""
        self.field(name).wrong(f"required; for example {example}")

    def mapping(self, example: str, known: Collection[str] | None = None) -> dict[str, Value]:
        """Return its fields by key, in order; keys that are not `known` are problems."""
        if not isinstance(self.node, yaml.MappingNode):
            self.wrong(f"expected a mapping, found {self.shown}; for example {example}")
            return {}
        fields: dict[str, Value] = {}
        for key, node in self._pairs(self.node):
            if not isinstance(key, yaml.ScalarNode):
                written = _braced(key) or "a list or a mapping"
                Value(key, self.where, self.problems).wrong(f"{written} is not a key; quote it, or use another")
                continue
            name = str(key.value)
            if name in fields:
                problem = f"duplicate key, first used in line {fields[name].line}; remove one"
                Value(key, self._at(name), self.problems).wrong(problem)
                continue
            fields[name] = Value(node, self._at(name), self.problems)
            if known is not None and name not in known:
                guess = closest_match(name, known)
                right = f"did you mean {guess}?" if guess else f"known keys: {join_words(known, 'and')}"
                Value(key, self._at(name), self.problems).wrong(f"unknown key; {right}")
        return fields

    def fields(self, known: Collection[str], example: str) -> dict[str, Value]:
        """Return its fields by key, of a fixed set of keys."""
        return {name: value for name, value in self.mapping(example, known).items() if name in known}

    def items(self, example: str) -> list[Value]:
        """Return its elements."""
        if not isinstance(self.node, yaml.SequenceNode):
            self.wrong(f"expected a list, found {self.shown}; for example {example}")
            return []
        return [Value(node, f"{self.where}[{number}]", self.problems) for number, node in enumerate(self.node.value)]

    def is_list(self) -> bool:
        return isinstance(self.node, yaml.SequenceNode)

    def is_mapping(self) -> bool:
        return isinstance(self.node, yaml.MappingNode)

    def text(self, example: str) -> str | None:
        """Return a string; YAML reads some words as other types, which quotes prevent."""
        if self._is("str"):
            return self._encodable(str(self.node.value))
        if isinstance(self.node, yaml.ScalarNode) and self.node.value:
            self.wrong(f'{self.node.value} is not text in YAML; quote it: "{self.node.value}"')
        else:
            self.wrong(f"expected text, found {self.shown}; for example {example}")
        return None

    def as_written(self, example: str = '""') -> str | None:
        """Return a scalar as it is written in the file."""
        if isinstance(self.node, yaml.ScalarNode) and not (self._is("null") and not self.node.value):
            return self._encodable(str(self.node.value))
        if braced := _braced(self.node):
            self.wrong(f'{braced} is a mapping in YAML; quote it: "{{{braced.strip("{}")}}}"')
        else:
            self.wrong(f"expected text, found {self.shown}; for example {example}")
        return None

    def _encodable(self, text: str) -> str | None:
        """Return a text without halves of characters, which YAML's escapes can write."""
        half = _SURROGATE.search(text)
        if half:
            self.wrong(f"{half[0]!r} is half of a character; remove it")
        return None if half else text

    def word(self, kind: type[_Word], meanings: Mapping[str, str] = NO_MEANINGS) -> _Word | None:
        """Return one of a few words; `meanings` are those of other words, for a problem."""
        text = self.as_written(join_words([str(word) for word in kind]))
        if text is None or not self.accepts(choice_problem(self.where, text, kind, meanings)):
            return None
        return kind(text)

    def valid_text(self, example: str, rule: Callable[[str, str], Problem | None]) -> str | None:
        """Return a string that is valid by a rule of `core.validation`."""
        text = self.text(example)
        return text if text is not None and self.accepts(rule(self.where, text)) else None

    def address(self) -> Address | None:
        """Return an `ip:port`, with IPv6 in brackets."""
        text = self.as_written('"127.0.0.1:10000"')
        try:
            return None if text is None else Address.parse(text)
        except ValueError as error:
            self.wrong(str(error))
        return None

    def yes_no(self) -> bool | None:
        """Return true or false."""
        if self._is("bool"):
            return str(self.node.value).lower() in ("true", "yes", "on")
        self.wrong(f"{self.shown} is not valid; use true or false")
        return None

    def whole(self, least: int, most: int) -> int | None:
        """Return a whole number within bounds."""
        written = str(self.node.value) if self._is("int") else ""
        if _WHOLE.fullmatch(written) and least <= int(written) <= most:
            return int(written)
        if self._is("str") and _WHOLE.fullmatch(str(self.node.value)):
            self.wrong(f"{self.shown} is text in YAML; remove the quotes")
        else:
            self.wrong(f"{self.shown} is not valid; use a number from {least} to {most}")
        return None

    def seconds(self, least: float = MIN_SECONDS) -> float | None:
        """Return a duration of at least `least` seconds."""
        text = self.as_written("5m")
        if text is None or not self.accepts(duration_problem(self.where, text, least)):
            return None
        return parse_duration(text)

    def _is(self, kind: str) -> bool:
        return isinstance(self.node, yaml.ScalarNode) and self.node.tag == _TAG + kind

    def _at(self, name: str) -> str:
        return f"{self.where}.{name}" if self.where else name

    def _pairs(self, node: yaml.MappingNode, around: tuple[yaml.Node, ...] = ()) -> list[tuple[yaml.Node, yaml.Node]]:
        """Return keys and values; those merged with `<<` come last, unless the key exists.

        `around` are the mappings that this one is merged into.
        """
        own = [(key, value) for key, value in node.value if key.tag != f"{_TAG}merge"]
        names = {str(key.value) for key, _ in own}
        for key, value in node.value:
            if key.tag != f"{_TAG}merge":
                continue
            for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if not isinstance(source, yaml.MappingNode):
                    Value(value, self._at("<<"), self.problems).wrong("expected a mapping, or a list of mappings")
                    continue
                if source is node or source in around:
                    Value(value, self._at("<<"), self.problems).wrong("a mapping is merged into itself; remove it")
                    continue
                merged = [pair for pair in self._pairs(source, (*around, node)) if str(pair[0].value) not in names]
                names.update(str(key.value) for key, _ in merged)
                own += merged
        return own


def given(fields: Mapping[str, Value], key: str, read: Callable[[Value], _T | None], default: _T) -> _T:
    """Return the value of a key; the default if it is missing or not valid."""
    found = read(fields[key]) if key in fields else None
    return default if found is None else found


def _braced(node: yaml.Node) -> str | None:
    """Return a word in braces as it is written, such as `{port}` or `{{port}}`; None for other nodes."""
    if not isinstance(node, yaml.MappingNode) or len(node.value) != 1 or node.value[0][1].value:
        return None
    key = node.value[0][0]
    inner = str(key.value) if isinstance(key, yaml.ScalarNode) else _braced(key)
    return None if inner is None else f"{{{inner}}}"
