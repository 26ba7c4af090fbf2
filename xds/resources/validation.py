"""Validation of a configuration before Envoy receives it: all errors at once.

Pure. Envoy would reject a whole listener or route configuration for the error of one service. So an invalid service is
left out, and every configuration that Envoy is known to reject must be invalid here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from xds import ir

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,252}")
_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_DOMAIN = re.compile(rf"({_LABEL}\.)*{_LABEL}")
LONGEST_BODY_BYTES = 4096
"""Envoy rejects a route configuration with a longer body."""


def faults(
    listen: ir.Listen, services: Iterable[ir.Upstream], is_good: Callable[[ir.Upstream], bool] = lambda _: False
) -> dict[str, list[str]]:
    """Return the errors of single services by name. If two services conflict, the error is that of the later one.

    `is_good` returns whether a service was already found valid with these listeners. Only its conflicts are then
    checked. Raises `ValueError` with all errors of the shared listeners or of the whole configuration, one a line, if
    there are any: nothing of it can be served then.
    """
    shared = [*_address_problems("listen.http", listen.http), *_address_problems("listen.tls", listen.tls)]
    found: dict[str, list[str]] = {}
    names: set[str] = set()
    hosts = {"*": listen.options.default_service} if listen.options.default_service else {}
    owners = {protocol: hosts if protocol.is_http else {} for protocol in ir.ServiceProtocol}
    listeners: dict[ir.SocketAddress, str] = {}
    for owner, address in (("listen.http", listen.http), ("listen.tls", listen.tls)):
        if address:
            shared += _claim(listeners, address, owner)
    for service in services:
        if service.name in names:
            shared.append(f"service {service.name}: duplicate name; give each service its own")
        names.add(service.name)
        if service.leaving:
            continue
        wrong = [] if is_good(service) else list(_service_problems(listen, service))
        if not wrong:
            wrong = _claims(owners, listeners, service)
        if wrong:
            found[service.name] = wrong
    if shared:
        raise ValueError("\n".join(shared))
    return found


def _claims(
    owners: dict[ir.ServiceProtocol, dict[str, str]], listeners: dict[ir.SocketAddress, str], service: ir.Upstream
) -> list[str]:
    """Claim a service's host names and address; a service that cannot claim all of them claims none."""
    if service.listen is None:
        return _domain_claims(owners[service.protocol], service)
    taken = _claim(listeners, service.listen, f"service {service.name}")
    if taken or service.protocol is ir.ServiceProtocol.TCP:
        return taken
    if taken := _domain_claims(owners[service.protocol], service):
        del listeners[_canonical(service.listen)]
    return taken


def is_name(name: str) -> bool:
    """Return whether this is a valid service name."""
    return _NAME.fullmatch(name) is not None


def _domain_claims(owners: dict[str, str], service: ir.Upstream) -> list[str]:
    """Claim a service's host names. Formats text for errors only, because each change claims all names again."""
    name = service.name
    taken = [domain for domain in service.domains if owners.get(domain.lower(), name) != name]
    if not taken:
        owners.update((domain.lower(), name) for domain in service.domains)
    return [
        f"service {name}: the host name {domain!r} belongs to service {owners[domain.lower()]}; use another"
        for domain in taken
    ]


def _claim(owners: dict[ir.SocketAddress, str], address: ir.SocketAddress, owner: str) -> list[str]:
    if (other := owners.setdefault(_canonical(address), owner)) == owner:
        return []
    return [f"{owner}: the address {address.host}:{address.port} belongs to {other}; use another"]


def _service_problems(listen: ir.Listen, service: ir.Upstream) -> Iterator[str]:
    where = f"service {service.name}"
    if not is_name(service.name):
        yield f"service {service.name!r}: not a valid name; use letters, digits, '.', '_', '/', and '-'"
    yield from _ignore_problems(where, service)
    tcp, tls = service.protocol is ir.ServiceProtocol.TCP, service.protocol is ir.ServiceProtocol.TLS
    if tcp and service.listen is None:
        yield f"{where}: a tcp service requires a listen address; set listen"
    if tls and service.listen is not None:
        yield f"{where}: listen is not available for tls; remove it"
    yield from _address_problems(where, service.listen)
    if tcp:
        return
    if (listen.tls if tls else listen.http or service.listen) is None:
        yield f"{where}: no listener for {service.protocol}; set listen.{'tls' if tls else 'http'}"
    if not service.domains and service.listen is None:
        yield f"{where}: no host name; add one to hosts"
    for domain in service.domains:
        yield from _domain_problems(where, domain, tls=tls)


def _ignore_problems(where: str, service: ir.Upstream) -> Iterator[str]:
    for rule in service.ignore:
        if not (rule.paths or rule.user_agents or rule.sources):
            yield f"{where}: an ignore rule is empty; add paths, user agents, or sources"
        for source in rule.sources:
            if not _is_network(source):
                yield f"{where}: {source!r} is not an IP address or range; use for example 10.0.0.0/8"
        if not service.protocol.is_http:
            if rule.paths or rule.user_agents:
                yield f"{where}: paths and user agents are not available for {service.protocol}; use sources"
            continue
        for path in rule.paths:
            if not path.startswith("/") or "*" in path[:-1]:
                yield f"{where}: {path!r} is not a path; begin with '/', and use '*' only at the end"
        for agent in rule.user_agents:
            if not agent.strip("*"):
                yield f"{where}: the user agent {agent!r} matches every request; remove it"
        if len(rule.body.encode(errors="replace")) > LONGEST_BODY_BYTES:
            yield f"{where}: the body of an answer is too long; use at most {LONGEST_BODY_BYTES} bytes"
        if not 200 <= rule.status < 600:
            yield f"{where}: {rule.status} is not a valid status; use 200 to 599"


def _is_network(source: str) -> bool:
    try:
        ip_network(source, strict=False)
    except ValueError:
        return False
    return "%" not in source


def _domain_problems(where: str, domain: str, *, tls: bool) -> Iterator[str]:
    name = domain.lower()
    if _DOMAIN.fullmatch(name) or (name.startswith("*.") and _DOMAIN.fullmatch(name[2:])):
        return
    ip = _ip(name.removeprefix("[").removesuffix("]"))
    if not tls and (name == "*" or (name.endswith(".*") and _DOMAIN.fullmatch(name[:-2])) or ip):
        return
    wildcards = "a leading '*.'" if tls else "a leading '*.' or a trailing '.*'"
    yield f"{where}: {domain!r} is not a host name; omit port and scheme, and use only {wildcards} as a wildcard"


@lru_cache(maxsize=4096)
def _ip(text: str) -> IPv4Address | IPv6Address | None:
    """Return the IP address in a text. Cached, because parsing costs as much as changing one endpoint."""
    try:
        return ip_address(text)
    except ValueError:
        return None


@lru_cache(maxsize=4096)
def _canonical(address: ir.SocketAddress) -> ir.SocketAddress:
    """Return the address in its canonical notation, because Envoy rejects two listeners at one address."""
    return ir.SocketAddress(str(_ip(address.host) or address.host), address.port)


def _address_problems(where: str, address: ir.SocketAddress | None) -> Iterator[str]:
    """Yield the errors of an address that Envoy listens on."""
    if address is None:
        return
    yield from address_problems(where, address)
    ip = _ip(address.host)
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped:
        yield f"{where}: {address.host!r} is an IPv4 address in IPv6 notation; use {ip.ipv4_mapped}"


def address_problems(where: str, address: ir.SocketAddress) -> Iterator[str]:
    """Yield the errors of an address that Envoy listens on or connects to."""
    if "%" in address.host or _ip(address.host) is None:
        yield f"{where}: {address.host!r} is not an IP address; use for example 10.0.0.7 or fd00::7"
    if not 0 < address.port < 65536:
        yield f"{where}: {address.port} is not a port; use 1 to 65535"
