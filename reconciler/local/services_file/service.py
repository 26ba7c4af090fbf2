"""One service of a file: its fields, checked one by one and against its protocol.

A service with mistakes is still read as far as possible, so that conflicts with other services are reported, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from reconciler.core import validation
from reconciler.core.address import Address
from reconciler.core.spec import PROTOCOL_OF_WORD, IdleBy, Protocol, Spec, WakeBy
from reconciler.core.validation import IDLE_BY, MAX_HELD, MAX_TRUSTED_HOPS, WAKE_BY, Notation
from reconciler.local.services_file import command
from reconciler.local.services_file.addresses import address, host_name, service_name
from reconciler.local.services_file.ignore_rules import read_ignore
from reconciler.local.services_file.model import Entry
from reconciler.local.services_file.values import Value

TIMING = ("idleAfter", "wakeTimeout", "holdTimeout", "drainTimeout", "maxHeld", "refusalDetails")
"""The keys that `defaults` may set for all services."""
KEYS = ("name", "protocol", "hosts", "listen", "http", *command.KEYS, *TIMING, "idle", "wake", "ignore", "paused")
SLOW_SECONDS = 30.0
"""A start that takes longer is reported, however long clients may wait."""
NOTATION = Notation(place=str, key=str)
LISTEN_EXAMPLE = '"127.0.0.1:15432"'
EXAMPLE = f"{{name: web, command: {command.EXAMPLE}}}"


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

    def seconds(key: str) -> float | None:
        return fields[key].seconds() if key in fields else None

    return replace(
        otherwise,
        idle_after=seconds("idleAfter") or otherwise.idle_after,
        wake_timeout=seconds("wakeTimeout") or otherwise.wake_timeout,
        hold_timeout=seconds("holdTimeout") or otherwise.hold_timeout,
        drain_timeout=seconds("drainTimeout") or otherwise.drain_timeout,
        max_held=(fields["maxHeld"].whole(1, MAX_HELD) if "maxHeld" in fields else None) or otherwise.max_held,
        refusal_details=fields["refusalDetails"].yes_no() is True
        if "refusalDetails" in fields
        else otherwise.refusal_details,
    )


def read_service(value: Value, defaults: Spec, folder: Path) -> Draft:
    """Read one service; relative paths start at `folder`."""
    fields = value.fields(KEYS, EXAMPLE)
    if "name" not in fields:
        value.lacks("name", "name: web")
    name = service_name(fields["name"]) if "name" in fields else ""
    protocol, origin = _protocol(fields)
    listen = _listen(value, fields.get("listen"), protocol)
    hosts = [(host_name(item), item) for item in _hosts(fields.get("hosts"), protocol, origin)]
    own = [name] if protocol is not Protocol.TCP else []
    spec = replace(
        read_timing(fields, defaults),
        name=name,
        protocol=protocol,
        hosts=tuple(dict.fromkeys(host for host in (*own, *(host for host, _ in hosts)) if host)),
        listen=str(listen) if listen else None,
        trusted_hops=_trusted_hops(fields, protocol, origin),
        idle_by=_idle_by(fields.get("idle"), protocol),
        wake_by=_wake_by(fields.get("wake"), protocol),
        ignore=read_ignore(fields.get("ignore"), protocol),
        paused=bool("paused" in fields and fields["paused"].yes_no()),
    )
    program = command.read_program(value, fields, folder, protocol, spec.drain_timeout)
    addresses = (*([str(listen)] if listen else []), *(host for host, _ in hosts if host))
    names = [(host, fields["name"]) for host in own if host]
    spec = replace(spec, has_busy_check=program.has_busy_check)
    return Draft(
        value,
        fields,
        Entry(spec, replace(program, addresses=addresses, slow_after=_slow_after(spec))),
        listen,
        tuple(names + [pair for pair in hosts if pair[0]]),
    )


def _slow_after(spec: Spec) -> float:
    """Return the time after which a start is reported as slow: while clients of this wake are still held."""
    return min(SLOW_SECONDS, spec.hold_timeout / 2, spec.wake_timeout / 2)


def _protocol(fields: Mapping[str, Value]) -> tuple[Protocol, str]:
    """Return the protocol, and for problems its source if it is not set."""
    if "protocol" in fields:
        return fields["protocol"].word(Protocol, PROTOCOL_OF_WORD) or Protocol.HTTP, ""
    return (Protocol.TCP, " (because listen is set)") if "listen" in fields else (Protocol.HTTP, "")


def _listen(service: Value, value: Value | None, protocol: Protocol) -> Address | None:
    place = value or service.field("listen")
    is_available = place.accepts(validation.listen_problem(protocol, value is not None, NOTATION, LISTEN_EXAMPLE))
    return address(value) if value is not None and is_available else None


def _trusted_hops(fields: Mapping[str, Value], protocol: Protocol, origin: str) -> int | None:
    hops = fields["http"].fields(("trustedHops",), "{trustedHops: 1}").get("trustedHops") if "http" in fields else None
    if hops is None:
        return None
    problem = validation.trusted_hops_problem(protocol, "listen" in fields, NOTATION, '"127.0.0.1:8100"', origin)
    return hops.whole(0, MAX_TRUSTED_HOPS) if hops.accepts(problem) else None


def _hosts(value: Value | None, protocol: Protocol, origin: str) -> list[Value]:
    if value is None or not value.accepts(validation.hosts_problem(protocol, True, NOTATION, origin)):
        return []
    return value.items("[shop.example.com]")


def _idle_by(value: Value | None, protocol: Protocol) -> IdleBy:
    default = IDLE_BY[protocol][0]
    by = value.fields(["by"], f"{{by: {default}}}").get("by") if value else None
    word = by.word(IdleBy) if by else None
    if by is not None and word is not None:
        by.accepts(validation.idle_by_problem(protocol, word, NOTATION))
    return word or default


def _wake_by(value: Value | None, protocol: Protocol) -> WakeBy:
    default = WAKE_BY[protocol][0]
    by = value.fields(["by"], f"{{by: {default}}}").get("by") if value else None
    word = by.word(WakeBy) if by else None
    if by is not None and word is not None:
        by.accepts(validation.wake_by_problem(protocol, word, NOTATION))
    return word or default
