"""What is no use of a service: `spec.ignore`, with everything that can be wrong with it. Pure.

Counterparts: `resolve.py` and `annotations.py`, which ask; the services file says the same in `ignoring.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import ip_network

from reconciler.core.reasons import Problem, Reason
from reconciler.core.spec import Ignore, Protocol
from reconciler.kubernetes.types.scaled_service import IgnoreAnswer, IgnoreRule

LONGEST_BODY_BYTES = 4096
"""Envoy refuses its whole configuration for one answer that is longer."""
RULE = "{paths: [/healthz], userAgents: [kube-probe/]}"
Fault = tuple[str, str]
"""What is wrong, and what would be right."""


def rules(said: tuple[IgnoreRule, ...]) -> tuple[Ignore, ...]:
    """They are known to be right."""
    return tuple(_rule(rule, rule.answer or IgnoreAnswer()) for rule in said)


def _rule(rule: IgnoreRule, answer: IgnoreAnswer) -> Ignore:
    sources = tuple(str(ip_network(source, strict=False)) for source in rule.sources or ())
    return Ignore(
        paths=rule.paths or (),
        user_agents=rule.user_agents or (),
        sources=sources,
        status=answer.status,
        body=answer.body,
    )


def bad_rules(said: tuple[IgnoreRule, ...]) -> Iterator[tuple[str, Fault]]:
    """What is wrong with them whatever the protocol, and where."""
    for number, rule in enumerate(said):
        where = f"spec.ignore[{number}]"
        if rule.paths is rule.user_agents is rule.sources is None:
            yield where, ("a rule names paths, userAgents or sources", f"write it as {RULE}")
        yield from _bad_texts(f"{where}.paths", rule.paths, path_fault)
        yield from _bad_texts(f"{where}.userAgents", rule.user_agents, agent_fault)
        yield from _bad_texts(f"{where}.sources", rule.sources, source_fault)
        for part, fault in answer_faults(rule.answer or IgnoreAnswer()):
            yield f"{where}.answer.{part}", fault


def not_known_of(protocol: Protocol, why: str, said: tuple[IgnoreRule, ...]) -> Iterator[Problem]:
    """What they name that cannot be told of this protocol; `why` says where the protocol comes from."""
    if protocol.is_http:
        return
    for number, rule in enumerate(said):
        given = {"paths": rule.paths, "userAgents": rule.user_agents, "answer": rule.answer}
        for name in [name for name, value in given.items() if value is not None]:
            what = f"of {protocol} connections{why} only sources are known, and they get no answer"
            yield Problem(Reason.IGNORE_NOT_USED, f"spec.ignore[{number}].{name}", what, "leave it out")


def _bad_texts(
    where: str, texts: tuple[str, ...] | None, fault_of: Callable[[str], Fault | None]
) -> Iterator[tuple[str, Fault]]:
    if texts == ():
        yield where, ("an empty list matches nothing", "leave it out")
    for number, text in enumerate(texts or ()):
        if fault := fault_of(text):
            yield f"{where}[{number}]", fault


def path_fault(text: str) -> Fault | None:
    if text.startswith("/") and "*" not in text[:-1]:
        return None
    return f"{text!r} is not a path", "it begins with / and only its end may be *, as in /metrics/*"


def agent_fault(text: str) -> Fault | None:
    return None if text else ("'' is the beginning of every user agent", "write it as kube-probe/")


def source_fault(text: str) -> Fault | None:
    try:
        ip_network(text, strict=False)
    except ValueError:
        return f"{text!r} is neither an IP address nor a range", "write it as 10.0.0.0/8 or fd00::/8"
    return None


def answer_faults(answer: IgnoreAnswer) -> Iterator[tuple[str, Fault]]:
    if not 200 <= answer.status <= 599:
        yield "status", (f"{answer.status} is not the status of an answer", "write a number from 200 to 599")
    if len(answer.body.encode()) > LONGEST_BODY_BYTES:
        yield "body", (f"it has more than {LONGEST_BODY_BYTES} bytes", "shorten it")
