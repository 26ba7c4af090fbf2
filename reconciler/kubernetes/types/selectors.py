"""Label selectors in the notation of the API, such as `app=web,tier in (a,b),!canary`. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

Labels = Mapping[str, str]
Matcher = Callable[[Labels], bool]

_REQUIREMENT = re.compile(
    r"\s*(?:!\s*(?P<absent>[\w./-]+)"
    r"|(?P<key>[\w./-]+)\s*(?:(?P<op>==|=|!=)\s*(?P<value>[\w.-]*)"
    r"|\s(?P<set>in|notin)\s*\((?P<values>[^)]*)\)|(?P<than>[<>])\s*(?P<number>-?\d+))?)\s*(?:,|$)"
)


def compile_selector(selector: str) -> Matcher:
    """Return a function that matches labels. An empty or invalid selector matches nothing."""
    requirements: list[Matcher] = []
    at = 0
    while at < len(selector):
        found = _REQUIREMENT.match(selector, at)
        if found is None:
            return lambda labels: False
        requirements.append(_requirement(found))
        at = found.end()
    return lambda labels: bool(requirements) and all(holds(labels) for holds in requirements)


def selector_of(labels: Labels) -> str:
    """Return a Service's selector in the notation of the scale subresource."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def _requirement(found: re.Match[str]) -> Matcher:
    if absent := found["absent"]:
        return lambda labels: absent not in labels
    key = found["key"]
    if found["set"]:
        values = {value.strip() for value in found["values"].split(",")}
        wanted = found["set"] == "in"
        # An object without the label is not in the set, and so matches `notin`.
        return lambda labels: (labels.get(key) in values) is wanted
    if found["op"]:
        value, equal = found["value"], found["op"] != "!="
        return lambda labels: (labels.get(key) == value) is equal
    if found["than"]:
        number, greater = int(found["number"]), found["than"] == ">"
        return lambda labels: _is_beyond(labels.get(key, ""), number, greater)
    return lambda labels: key in labels


def _is_beyond(value: str, number: int, greater: bool) -> bool:
    return bool(re.fullmatch(r"-?\d+", value)) and (int(value) > number if greater else int(value) < number)
