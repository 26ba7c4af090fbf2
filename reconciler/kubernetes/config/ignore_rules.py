"""Validation and conversion of `spec.ignore`. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import ip_network

from reconciler.core import validation
from reconciler.core.reasons import Problem, Reason
from reconciler.core.spec import Ignore, Protocol
from reconciler.core.validation import MAX_STATUS, MIN_STATUS, Notation
from reconciler.kubernetes.types.scaled_service import IgnoreAnswer, IgnoreRule

MAX_COMBINATIONS, MAX_CHARACTERS = 1000, 131_072
"""The proxies have a route for each combination of a path and a user agent, with all sources and the body. All services
share their memory, so what one object can fill is bounded."""


def convert_rule(rule: IgnoreRule) -> Ignore:
    """Convert a valid rule."""
    answer = rule.answer or IgnoreAnswer()
    sources = tuple(str(ip_network(source, strict=False)) for source in rule.sources or ())
    return Ignore(
        paths=rule.paths or (),
        user_agents=rule.user_agents or (),
        sources=sources,
        status=answer.status,
        body=answer.body,
    )


def rule_problems(rules: tuple[IgnoreRule, ...], names: Notation) -> Iterator[Problem | None]:
    """Yield the problems that do not depend on the protocol."""
    for number, rule in enumerate(rules):
        place = f"ignore[{number}]"
        if rule.paths is rule.user_agents is rule.sources is None:
            remedy = "use for example {paths: [/healthz], userAgents: [kube-probe/]}"
            yield Problem(Reason.BAD_SPEC, names.place(place), "a rule needs paths, userAgents, or sources", remedy)
        yield from _texts(names.place(f"{place}.paths"), rule.paths, validation.path_problem)
        yield from _texts(names.place(f"{place}.userAgents"), rule.user_agents, validation.user_agent_problem)
        yield from _texts(names.place(f"{place}.sources"), rule.sources, validation.source_problem)
        yield from answer_problems(names.place(f"{place}.answer"), rule.answer or IgnoreAnswer())
    sizes = [_size(rule) for rule in rules]
    combinations, characters = sum(number for number, _ in sizes), sum(length for _, length in sizes)
    if combinations > MAX_COMBINATIONS or characters > MAX_CHARACTERS:
        largest = sizes.index(max(sizes))
        part = "paths" if rules[largest].paths else "userAgents" if rules[largest].user_agents else "sources"
        what = f"all rules have {combinations} combinations of paths and userAgents, with {characters} characters"
        remedy = f"use at most {MAX_COMBINATIONS} and {MAX_CHARACTERS}; a prefix such as /metrics/* covers many paths"
        yield Problem(Reason.BAD_SPEC, names.place(f"ignore[{largest}].{part}"), what, remedy)


def _size(rule: IgnoreRule) -> tuple[int, int]:
    """Return the number of combinations of a rule, and of the characters in all of them."""
    paths, agents = rule.paths or ("",), rule.user_agents or ("",)
    combinations = len(paths) * len(agents)
    shared = sum(map(len, rule.sources or ())) + len(rule.answer.body if rule.answer else "")
    return combinations, len(agents) * sum(map(len, paths)) + len(paths) * sum(map(len, agents)) + combinations * shared


def answer_problems(place: str, answer: IgnoreAnswer) -> Iterator[Problem | None]:
    """Yield the problems of the answer to ignored requests."""
    yield validation.number_problem(f"{place}.status", answer.status, MAX_STATUS, 200, MIN_STATUS)
    yield validation.body_problem(f"{place}.body", answer.body)


def unavailable_parts(
    protocol: Protocol, origin: str, rules: tuple[IgnoreRule, ...], names: Notation
) -> Iterator[Problem | None]:
    """Yield a problem for each key that the protocol does not allow; `origin` is the origin of the protocol."""
    for number, rule in enumerate(rules):
        parts = {"paths": rule.paths, "userAgents": rule.user_agents, "answer": rule.answer}
        for name in [name for name, value in parts.items() if value is not None]:
            yield validation.ignore_part_problem(names.place(f"ignore[{number}].{name}"), name, protocol, origin)


def _texts(
    place: str, texts: tuple[str, ...] | None, check: Callable[[str, str], Problem | None]
) -> Iterator[Problem | None]:
    if texts == ():
        yield Problem(Reason.BAD_SPEC, place, "an empty list matches nothing", "remove it")
    for number, text in enumerate(texts or ()):
        yield check(f"{place}[{number}]", text)
