"""One service of a file: its fields, checked one by one and against its protocol.

A service with mistakes is still read as far as possible, so that conflicts with other services are reported, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_network
from pathlib import Path

from reconciler.core import validation
from reconciler.core.address import Address
from reconciler.core.reasons import Problem
from reconciler.core.spec import PROTOCOL_OF_WORD, Ignore, Protocol, Spec, UsageUnit
from reconciler.core.validation import MAX_HELD, MAX_STATUS, MAX_TRUSTED_HOPS, MIN_STATUS, UNITS, Notation
from reconciler.local.services_file import command
from reconciler.local.services_file.model import Entry
from reconciler.local.services_file.values import Value, given

TIMING = ("idleAfter", "wakeTimeout", "holdTimeout", "drainTimeout", "maxHeld", "refusalDetails")
"""The keys that `defaults` may set for all services."""
KEYS = ("name", "protocol", "hosts", "listen", "http", *command.KEYS, *TIMING, "idle", "wake", "ignore", "paused")
SLOW_SECONDS = 30.0
"""A start that takes longer is reported, however long clients may wait."""
NOTATION = Notation(place=str, key=str)
EXAMPLE = f"{{name: web, command: {command.EXAMPLE}}}"
IGNORE_EXAMPLE = "{paths: [/healthz], userAgents: [kube-probe/]}"
_IGNORED = ("paths", "userAgents", "sources")
_PATHS, _AGENTS, _SOURCES = "[/healthz, /metrics/*]", "[kube-probe/, Prometheus/]", "[10.0.0.0/8]"
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Draft:
    """A service as read, with the places of values that must be unique."""

    value: Value
    fields: Mapping[str, Value]
    entry: Entry
    listen: Address | None
    hosts: tuple[tuple[str, Value], ...]
    """Its host names with their places, its own name first."""


def read_timing(fields: Mapping[str, Value], otherwise: Spec) -> Spec:
    """Return `otherwise`, with the valid fields of `TIMING`."""
    return replace(
        otherwise,
        idle_after=given(fields, "idleAfter", Value.seconds, otherwise.idle_after),
        wake_timeout=given(fields, "wakeTimeout", Value.seconds, otherwise.wake_timeout),
        hold_timeout=given(fields, "holdTimeout", Value.seconds, otherwise.hold_timeout),
        drain_timeout=given(fields, "drainTimeout", Value.seconds, otherwise.drain_timeout),
        max_held=given(fields, "maxHeld", lambda held: held.whole(1, MAX_HELD), otherwise.max_held),
        refusal_details=given(fields, "refusalDetails", Value.yes_no, otherwise.refusal_details),
    )


def read_service(value: Value, defaults: Spec, folder: Path) -> Draft:
    """Read one service; relative paths start at `folder`."""
    fields = value.fields(KEYS, EXAMPLE)
    if "name" not in fields:
        value.lacks("name", "name: web")
    name = _name(fields["name"]) if "name" in fields else ""
    protocol, origin = _protocol(fields)
    listen = _listen(value, fields.get("listen"), protocol)
    hosts = _hosts(fields.get("hosts"), protocol, origin)
    ignore = fields["ignore"].items(f"[{IGNORE_EXAMPLE}]") if "ignore" in fields else []
    own = [(name, fields["name"])] if name and protocol is not Protocol.TCP else []
    spec = replace(
        read_timing(fields, defaults),
        name=name,
        protocol=protocol,
        hosts=tuple(dict.fromkeys(host for host, _ in own + hosts)),
        listen=str(listen) if listen else None,
        trusted_hops=_trusted_hops(fields, protocol, origin),
        idle_by=_unit("idle", fields, protocol),
        wake_by=_unit("wake", fields, protocol),
        ignore=tuple(rule for item in ignore if (rule := _ignore_rule(item, protocol))),
        paused=given(fields, "paused", Value.yes_no, False),
    )
    program = command.read_program(value, fields, folder, protocol, spec.drain_timeout)
    spec = replace(spec, has_busy_check=program.has_busy_check)
    addresses = (*([str(listen)] if listen else []), *(host for host, _ in hosts))
    # A start is slow while clients of this wake are still held.
    slow_after = min(SLOW_SECONDS, spec.hold_timeout / 2, spec.wake_timeout / 2)
    entry = Entry(spec, replace(program, addresses=addresses, slow_after=slow_after))
    return Draft(value, fields, entry, listen, (*own, *hosts))


def _name(value: Value) -> str:
    """Return a DNS label; empty if it is not valid."""
    text = value.text("web")
    if text is None or _NAME.fullmatch(text):
        return text or ""
    close = re.sub(r"[^a-z0-9.-]+", "-", text.lower()).strip("-.")
    example = f", for example {close}" if _NAME.fullmatch(close) else ""
    value.wrong(f"{text!r} is not a DNS label; use at most 63 of a-z, 0-9 and -{example}")
    return ""


def _protocol(fields: Mapping[str, Value]) -> tuple[Protocol, str]:
    """Return the protocol, and for problems its source if it is not set."""
    if "protocol" in fields:
        return fields["protocol"].word(Protocol, PROTOCOL_OF_WORD) or Protocol.HTTP, ""
    return (Protocol.TCP, " (because listen is set)") if "listen" in fields else (Protocol.HTTP, "")


def _listen(service: Value, value: Value | None, protocol: Protocol) -> Address | None:
    place = value or service.field("listen")
    is_available = place.accepts(validation.listen_problem(protocol, value is not None, NOTATION, '"127.0.0.1:15432"'))
    return value.address() if value is not None and is_available else None


def _trusted_hops(fields: Mapping[str, Value], protocol: Protocol, origin: str) -> int | None:
    hops = fields["http"].fields(("trustedHops",), "{trustedHops: 1}").get("trustedHops") if "http" in fields else None
    if hops is None:
        return None
    problem = validation.trusted_hops_problem(protocol, "listen" in fields, NOTATION, '"127.0.0.1:8100"', origin)
    return hops.whole(0, MAX_TRUSTED_HOPS) if hops.accepts(problem) else None


def _hosts(value: Value | None, protocol: Protocol, origin: str) -> list[tuple[str, Value]]:
    """Return the valid host names with their places."""
    if value is None or not value.accepts(validation.hosts_problem(protocol, True, NOTATION, origin)):
        return []
    items = value.items("[shop.example.com]")
    return [(host, item) for item in items if (host := item.valid_text("shop.example.com", validation.host_problem))]


def _unit(key: str, fields: Mapping[str, Value], protocol: Protocol) -> UsageUnit:
    """Return the field `by` of a key, or the default of the protocol."""
    field = f"{key}.by"
    default = UNITS[field][protocol][0]
    by = fields[key].fields(["by"], f"{{by: {default}}}").get("by") if key in fields else None
    word = by.word(UsageUnit) if by else None
    if by is not None and word is not None:
        by.accepts(validation.unit_problem(field, protocol, word, NOTATION))
    return word or default


def _ignore_rule(value: Value, protocol: Protocol) -> Ignore | None:
    fields = value.fields((*_IGNORED, "answer"), IGNORE_EXAMPLE)
    if not any(name in fields for name in _IGNORED):
        value.wrong(f"required: paths, userAgents or sources; for example {IGNORE_EXAMPLE}")
        return None
    if not protocol.is_http:
        for name in [name for name in fields if name != "sources"]:
            fields.pop(name).wrong(f"not available for {protocol} services; use sources")
    answer = fields["answer"].fields(("status", "body"), "{status: 200, body: asleep}") if "answer" in fields else {}
    return Ignore(
        paths=_texts(fields.get("paths"), _PATHS, "/healthz", validation.path_problem),
        user_agents=_texts(fields.get("userAgents"), _AGENTS, "kube-probe/", validation.user_agent_problem),
        sources=tuple(
            str(ip_network(source, strict=False))
            for source in _texts(fields.get("sources"), _SOURCES, "10.0.0.0/8", validation.source_problem)
        ),
        status=given(answer, "status", lambda status: status.whole(MIN_STATUS, MAX_STATUS), 200),
        body=given(answer, "body", lambda body: body.valid_text("asleep", validation.body_problem), ""),
    )


def _texts(
    value: Value | None, example: str, item_example: str, rule: Callable[[str, str], Problem | None]
) -> tuple[str, ...]:
    """Return the texts of a list that are valid by a rule."""
    items = value.items(example) if value else []
    if value and value.is_list() and not items:
        value.wrong(f"an empty list matches nothing; remove it, or use for example {example}")
    return tuple(text for item in items if (text := item.valid_text(item_example, rule)))
