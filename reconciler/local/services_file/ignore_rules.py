"""The `ignore` rules of a service: traffic that does not count as usage."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network

from reconciler.core.spec import Ignore, Protocol
from reconciler.local.services_file.values import Value

EXAMPLE = "[{paths: [/healthz], userAgents: [kube-probe/]}]"
_PATHS, _AGENTS, _SOURCES = "[/healthz, /metrics/*]", "[kube-probe/, Prometheus/]", "[10.0.0.0/8]"
LONGEST_BODY_BYTES = 4096
"""Envoy rejects its whole configuration if one answer is longer."""
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
        status=(answer["status"].whole(200, 599) if "status" in answer else None) or 200,
        body=_body(answer["body"]) if "body" in answer else "",
    )


def _texts(value: Value | None, example: str, read: Callable[[Value], str | None]) -> tuple[str, ...]:
    texts = [read(item) for item in value.items(example)] if value else []
    if value and value.is_list() and not texts:
        value.wrong(f"an empty list matches nothing; remove it, or use for example {example}")
    return tuple(text for text in texts if text)


def _body(value: Value) -> str:
    body = value.text("asleep") or ""
    if len(body.encode()) > LONGEST_BODY_BYTES:
        value.wrong(f"longer than {LONGEST_BODY_BYTES} bytes; shorten it")
    return body


def _agent(value: Value) -> str | None:
    agent = value.text("kube-probe/")
    if agent == "":
        value.wrong("'' matches every user agent; use for example kube-probe/")
    return agent


def _path(value: Value) -> str | None:
    path = value.text("/healthz")
    if path is not None and (not path.startswith("/") or "*" in path[:-1]):
        value.wrong(f"{path!r} is not a path; start it with /, and use * only at its end, as in /metrics/*")
        return None
    return path


def _source(value: Value) -> str | None:
    source = value.text("10.0.0.0/8")
    try:
        return source and str(ip_network(source, strict=False))
    except ValueError:
        value.wrong(f"{source!r} is not an IP address or range; use for example 10.0.0.0/8 or fd00::/8")
        return None
