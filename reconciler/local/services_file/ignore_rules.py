"""What is no use of a service: `ignore`, a list of rules."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network

from reconciler.core.spec import Ignore, Protocol
from reconciler.local.services_file.values import Value

EXAMPLE = "[{paths: [/healthz], userAgents: [kube-probe/]}]"
_PATHS, _AGENTS, _SOURCES = "[/healthz, /metrics/*]", "[kube-probe/, Prometheus/]", "[10.0.0.0/8]"
LONGEST_BODY_BYTES = 4096
"""Envoy refuses its whole configuration for one answer that is longer."""
_WHAT = ("paths", "userAgents", "sources")


def read_ignore(value: Value | None, protocol: Protocol) -> tuple[Ignore, ...]:
    """The rules; what is wrong with one is noted, and it is left out."""
    rules = [_rule(item, protocol) for item in value.items(EXAMPLE)] if value else []
    return tuple(rule for rule in rules if rule)


def _rule(value: Value, protocol: Protocol) -> Ignore | None:
    fields = value.fields((*_WHAT, "answer"), EXAMPLE[1:-1])
    if not any(name in fields for name in _WHAT):
        value.wrong(f"a rule names paths, userAgents or sources; write it as {EXAMPLE[1:-1]}")
        return None
    if not protocol.is_http:
        for name in [name for name in fields if name != "sources"]:
            fields.pop(name).wrong(f"of {protocol} connections only sources are known; leave it out")
    answer = fields["answer"].fields(("status", "body"), "{status: 200, body: asleep}") if "answer" in fields else {}
    return Ignore(
        paths=_texts(fields.get("paths"), _PATHS, _path),
        user_agents=_texts(fields.get("userAgents"), _AGENTS, _agent),
        sources=_texts(fields.get("sources"), _SOURCES, _source),
        status=(answer["status"].whole(200, 599) if "status" in answer else None) or 200,
        body=_body(answer["body"]) if "body" in answer else "",
    )


def _texts(value: Value | None, example: str, read: Callable[[Value], str | None]) -> tuple[str, ...]:
    texts = [read(item) for item in value.items(example)] if value else []
    if value and value.is_list() and not texts:
        value.wrong(f"an empty list matches nothing; write it as {example}, or leave it out")
    return tuple(text for text in texts if text)


def _body(value: Value) -> str:
    body = value.text("asleep") or ""
    if len(body.encode()) > LONGEST_BODY_BYTES:
        value.wrong(f"it has more than {LONGEST_BODY_BYTES} bytes; shorten it")
    return body


def _agent(value: Value) -> str | None:
    agent = value.text("kube-probe/")
    if agent == "":
        value.wrong("'' is the beginning of every user agent; write it as kube-probe/")
    return agent


def _path(value: Value) -> str | None:
    path = value.text("/healthz")
    if path is not None and (not path.startswith("/") or "*" in path[:-1]):
        value.wrong(f"{path!r} is not a path; it begins with / and only its end may be *, as in /metrics/*")
        return None
    return path


def _source(value: Value) -> str | None:
    source = value.text("10.0.0.0/8")
    try:
        return source and str(ip_network(source, strict=False))
    except ValueError:
        value.wrong(f"{source!r} is neither an IP address nor a range; write it as 10.0.0.0/8 or fd00::/8")
        return None
