"""The `ignore` rules of a service: traffic that does not count as usage."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network

from reconciler.core import validation
from reconciler.core.spec import Ignore, Protocol
from reconciler.core.validation import MAX_STATUS, MIN_STATUS
from reconciler.local.services_file.values import Value

EXAMPLE = "[{paths: [/healthz], userAgents: [kube-probe/]}]"
_PATHS, _AGENTS, _SOURCES = "[/healthz, /metrics/*]", "[kube-probe/, Prometheus/]", "[10.0.0.0/8]"
_WHAT = ("paths", "userAgents", "sources")


def read_ignore(value: Value | None, protocol: Protocol) -> tuple[Ignore, ...]:
    """Return the valid rules; problems of the others are recorded."""
    rules = [_rule(item, protocol) for item in value.items(EXAMPLE)] if value else []
    return tuple(rule for rule in rules if rule)


def _rule(value: Value, protocol: Protocol) -> Ignore | None:
    fields = value.fields((*_WHAT, "answer"), EXAMPLE[1:-1])
    if not any(name in fields for name in _WHAT):
        value.wrong(f"required: paths, userAgents or sources; for example {EXAMPLE[1:-1]}")
        return None
    if not protocol.is_http:
        for name in [name for name in fields if name != "sources"]:
            fields.pop(name).wrong(f"not available for {protocol} services; use sources")
    answer = fields["answer"].fields(("status", "body"), "{status: 200, body: asleep}") if "answer" in fields else {}
    return Ignore(
        paths=_texts(fields.get("paths"), _PATHS, _path),
        user_agents=_texts(fields.get("userAgents"), _AGENTS, _agent),
        sources=_texts(fields.get("sources"), _SOURCES, _source),
        status=(answer["status"].whole(MIN_STATUS, MAX_STATUS) if "status" in answer else None) or 200,
        body=_body(answer["body"]) if "body" in answer else "",
    )


def _texts(value: Value | None, example: str, read: Callable[[Value], str | None]) -> tuple[str, ...]:
    texts = [read(item) for item in value.items(example)] if value else []
    if value and value.is_list() and not texts:
        value.wrong(f"an empty list matches nothing; remove it, or use for example {example}")
    return tuple(text for text in texts if text)


def _body(value: Value) -> str:
    body = value.text("asleep") or ""
    value.follows(validation.body_problem, body)
    return body


def _agent(value: Value) -> str | None:
    agent = value.text("kube-probe/")
    return agent if agent is not None and value.follows(validation.user_agent_problem, agent) else None


def _path(value: Value) -> str | None:
    path = value.text("/healthz")
    return path if path is not None and value.follows(validation.path_problem, path) else None


def _source(value: Value) -> str | None:
    source = value.text("10.0.0.0/8")
    if source is None or not value.follows(validation.source_problem, source):
        return None
    return str(ip_network(source, strict=False))
