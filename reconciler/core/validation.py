"""The rules for specs that ScaledServices, annotations, and the services file share. Pure.

Each rule returns a `Problem`, or None if the value is valid. The CRD has the same limits and patterns, which a test
compares.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from types import MappingProxyType

from reconciler.core.reasons import Problem, Reason
from reconciler.core.spec import Protocol, UsageUnit
from reconciler.core.text import closest_match, join_words, parse_duration

NO_MEANINGS: Mapping[str, str] = MappingProxyType({})
MIN_SECONDS, MAX_SECONDS = 0.001, 10 * 365 * 24 * 3600
MAX_PORT = 65535
MAX_TRUSTED_HOPS = 100
MAX_HELD = 1_000_000
MAX_REPLICAS = 100_000
MIN_STATUS, MAX_STATUS = 200, 599
MAX_BODY_BYTES = 4096
"""Envoy rejects its whole configuration for one longer response."""
MAX_HOST_LENGTH = 253
LAST = "last"
"""The value of `replicas` for the last number while awake."""
_LABEL = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
HOST_PATTERN = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")
"""A host name, or `*.` with a domain for all names below it."""
PATH_PATTERN = re.compile(r"/[^*]*\*?", re.DOTALL)
IDLE_BY: Mapping[Protocol, tuple[UsageUnit, ...]] = {
    protocol: (UsageUnit.REQUESTS if protocol.is_http else UsageUnit.CONNECTIONS, UsageUnit.BYTES)
    for protocol in Protocol
}
"""Available values of `idle.by` for each protocol; the first is the default."""
WAKE_BY: Mapping[Protocol, tuple[UsageUnit, ...]] = {
    Protocol.HTTP: (UsageUnit.REQUESTS,),
    Protocol.H2C: (UsageUnit.REQUESTS,),
    Protocol.AUTO: (UsageUnit.REQUESTS,),
    Protocol.TCP: (UsageUnit.CONNECTIONS, UsageUnit.BYTES),
    Protocol.TLS: (UsageUnit.BYTES,),
}
"""Available values of `wake.by` for each protocol; the first is the default."""
UNITS = {"idle.by": IDLE_BY, "wake.by": WAKE_BY}


@dataclass(frozen=True, slots=True)
class Notation:
    """The names of fields in one kind of configuration."""

    place: Callable[[str], str]
    """Function that returns the place of a field, such as `spec.idle.by` for `idle.by`."""
    key: Callable[[str], str]
    """Function that returns the name of a field in the configuration, for remedies."""


def duration_problem(place: str, text: str, least: float = MIN_SECONDS) -> Problem | None:
    """Check a duration such as `1h30m`; `least` is in seconds."""
    seconds = parse_duration(text)
    if seconds is not None and least <= seconds <= MAX_SECONDS:
        return None
    if seconds is not None:
        remedy = f"use at least {least * 1000:g}ms and at most {MAX_SECONDS // 3600}h"
        return _bad(place, f"{text} is out of range", remedy)
    if text.replace(".", "", 1).isdecimal():
        return _bad(place, f"{text} has no unit", f"use for example {text}s or {text}m")
    return _bad(place, f"{text!r} is not a valid duration", "use for example 5m, 30s, or 1h30m")


def number_problem(place: str, number: int, most: int, example: int, least: int = 1) -> Problem | None:
    """Check a number against its limits."""
    if least <= number <= most:
        return None
    return _bad(place, f"{number} is not a number from {least} to {most}", f"use for example {example}")


def replicas_problem(place: str, replicas: int | str) -> Problem | None:
    """Check the number of replicas after a wake."""
    if replicas == LAST or (isinstance(replicas, int) and 1 <= replicas <= MAX_REPLICAS):
        return None
    return _bad(place, f"{replicas!r} is not valid", f"use {LAST}, or a number from 1 to {MAX_REPLICAS}")


def choice_problem(
    place: str, text: str, known: Iterable[str], meanings: Mapping[str, str] = NO_MEANINGS
) -> Problem | None:
    """Check one of several words; `meanings` are those of other words."""
    words = [str(word) for word in known]
    if text in words:
        return None
    guess = meanings.get(text.lower()) or closest_match(text, words)
    return _bad(place, f"{text!r} is not known", f"did you mean {guess}?" if guess else f"use {join_words(words)}")


def host_problem(place: str, host: str) -> Problem | None:
    """Check a host name or a server name; the remedy is a valid name that is close to it, if there is one."""
    if HOST_PATTERN.fullmatch(host) and len(host) <= MAX_HOST_LENGTH:
        return None
    wildcard = "*." if host.startswith("*.") else ""
    bare = re.sub(r"^[a-z]+://|[:/].*$", "", host.lower().removeprefix("*."), flags=re.DOTALL)
    near = wildcard + re.sub(r"[^a-z0-9.-]+", "-", _ascii_host(bare)).strip("-.") if "*" not in bare else ""
    valid = HOST_PATTERN.fullmatch(near) and len(near) <= MAX_HOST_LENGTH
    return _bad(place, f"{host!r} is not a valid host name", f"use {near if valid else 'for example shop.example.com'}")


def _ascii_host(host: str) -> str:
    """Return a host name as DNS has it; unchanged if it cannot be a name."""
    try:
        return host if host.isascii() or len(host) > MAX_HOST_LENGTH else host.encode("idna").decode()
    except UnicodeError:
        return host


def path_problem(place: str, path: str) -> Problem | None:
    """Check a path of an ignore rule."""
    if PATH_PATTERN.fullmatch(path):
        return None
    return _bad(place, f"{path!r} is not a valid path", "start it with /; it may end with *, for example /metrics/*")


def user_agent_problem(place: str, user_agent: str) -> Problem | None:
    """Check a user agent of an ignore rule."""
    if user_agent.strip("*"):
        return None
    return _bad(place, f"{user_agent!r} matches every user agent", "use for example kube-probe/ or *UptimeRobot")


def source_problem(place: str, source: str) -> Problem | None:
    """Check a source of an ignore rule."""
    try:
        if "%" in source:  # the interface of a link-local address, which Envoy does not compare
            raise ValueError
        ip_network(source, strict=False)
    except ValueError:
        what = f"{source!r} is not a valid IP address or range"
        return _bad(place, what, "use for example 10.0.0.0/8 or fd00::/8")
    return None


def body_problem(place: str, body: str) -> Problem | None:
    """Check the body of the response to ignored requests."""
    if len(body.encode(errors="replace")) <= MAX_BODY_BYTES:
        return None
    return _bad(place, f"longer than {MAX_BODY_BYTES} bytes", "shorten it")


def ignore_part_problem(place: str, part: str, protocol: Protocol, origin: str = "") -> Problem | None:
    """Check whether a part of an ignore rule is available for a protocol."""
    if protocol.is_http or part == "sources":
        return None
    what = f"not available for {protocol} services{origin}, whose connections have only sources"
    return Problem(Reason.IGNORE_NOT_USED, place, what, "remove it")


def listen_problem(protocol: Protocol, given: bool, names: Notation, example: str, origin: str = "") -> Problem | None:
    """Check that tcp services have `listen`, and tls services do not; `origin` is the source of an unset protocol."""
    place, key, other = names.place("listen"), names.key("listen"), names.key("protocol")
    if protocol is Protocol.TCP and not given:
        what = f"required for tcp services{origin}, which are identified by port"
        remedy = f"set for example {key}: {example}" + (f", or set {other}: http" if origin else "")
        return Problem(Reason.LISTEN_MISSING, place, what, remedy)
    if protocol is Protocol.TLS and given:
        what = f"not available for tls services{origin}, which share a listener"
        return Problem(Reason.LISTEN_NOT_USED, place, what, f"remove {key}, or set {other}: tcp")
    return None


def trusted_hops_problem(
    protocol: Protocol, listens: bool, names: Notation, example: str, origin: str = ""
) -> Problem | None:
    """Check that a service with `http.trustedHops` has an HTTP listener of its own; `listens` if it has `listen`."""
    path = "http.trustedHops"
    place, key = names.place(path), names.key(path)
    if not protocol.is_http:
        what = f"not available for {protocol} services{origin}"
        remedy = f"remove {key}" + (f", or set {names.key('protocol')}: http" if origin else "")
        return Problem(Reason.TRUSTED_HOPS_NOT_USED, place, what, remedy)
    if not listens:
        what, remedy = "only for a service with a port of its own", f"set for example {names.key('listen')}: {example}"
        return Problem(Reason.TRUSTED_HOPS_NOT_USED, place, what, f"{remedy}, or remove {key}")
    return None


def hosts_problem(protocol: Protocol, given: bool, names: Notation, origin: str = "") -> Problem | None:
    """Check that a tcp service has no `hosts`; `origin` is the source of an unset protocol."""
    if protocol is not Protocol.TCP or not given:
        return None
    what = f"not available for tcp services{origin}, which are identified by port"
    remedy = f"remove {names.key('hosts')}" + (f", or set {names.key('protocol')}: http" if origin else "")
    return Problem(Reason.HOSTS_NOT_USED, names.place("hosts"), what, remedy)


def unit_problem(field: str, protocol: Protocol, unit: UsageUnit, names: Notation, origin: str = "") -> Problem | None:
    """Check whether a unit is available for `idle.by` or `wake.by` with a protocol."""
    units, place = UNITS[field][protocol], names.place(field)
    if unit in units:
        return None
    what, remedy = f"{unit} is not available for {protocol}{origin}", f"use {join_words(units)}"
    if field == "idle.by":
        return Problem(Reason.IDLE_BY_UNKNOWN, place, what, remedy)
    return Problem(Reason.WAKE_BY_UNKNOWN, place, what, remedy)


def user_problem(place: str, user: str, uid: int | None, own: int) -> Problem | None:
    """Check the user of a program; `uid` is its number, None if it does not exist, and `own` that of this process."""
    if uid is None:
        return _bad(place, f"user {user!r} does not exist", "correct the name, or create it with useradd --system")
    if own not in (0, uid):
        return _bad(place, f"only root can start a program as {user!r}", "run zenvoy up as root, or remove user")
    return None


def _bad(place: str, message: str, remedy: str) -> Problem:
    return Problem(Reason.BAD_SPEC, place, message, remedy)
