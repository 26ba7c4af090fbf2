"""Finds what is wrong with a configuration before Envoy is told of it: everything at once, in words for people.

Pure. Envoy would reject a whole listener or route configuration for one service's mistake; so nothing that it would
reject may pass here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import TypeVar

from xds import ir

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,252}")
_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_DOMAIN = re.compile(rf"({_LABEL}\.)*{_LABEL}")
_Key = TypeVar("_Key")
_ROUTED_BY_NAME = frozenset({ir.Protocol.HTTP, ir.Protocol.H2C, ir.Protocol.TLS})


def problems(
    listen: ir.Listen, services: Iterable[ir.Service], is_good: Callable[[ir.Service], bool] = lambda _: False
) -> list[str]:
    """Return all that is wrong, in the order of the services; empty when nothing is.

    `is_good` says of a service that nothing was wrong with it alone, with these listeners: it is not looked at again.
    """
    found = [*_address_problems("listen.http", listen.http), *_address_problems("listen.tls", listen.tls)]
    names: set[str] = set()
    owners: dict[ir.Protocol, dict[str, str]] = {protocol: {} for protocol in _ROUTED_BY_NAME}
    owners[ir.Protocol.H2C] = owners[ir.Protocol.HTTP]
    listeners: dict[ir.Address, str] = {}
    for owner, address in (("listen.http", listen.http), ("listen.tls", listen.tls)):
        if address:
            found += _claim(listeners, address, owner, f"the address {address.host}:{address.port}")
    for service in services:
        if service.name in names:
            found.append(f"service {service.name}: the name is given twice")
        names.add(service.name)
        if service.leaving:
            continue
        if not is_good(service):
            found += _service_problems(listen, service)
        if service.protocol is ir.Protocol.TCP and service.listen:
            what = f"the address {service.listen.host}:{service.listen.port}"
            found += _claim(listeners, service.listen, f"service {service.name}", what)
        elif service.protocol in _ROUTED_BY_NAME:
            found += _domain_claims(owners[service.protocol], service)
    return found


def _domain_claims(owners: dict[str, str], service: ir.Service) -> list[str]:
    """All services are asked at each change: words are made only when there is something to say."""
    name = service.name
    taken = [domain for domain in service.domains if owners.setdefault(domain.lower(), name) != name]
    return [
        f"service {name}: the host name {domain!r} is already that of service {owners[domain.lower()]}"
        for domain in taken
    ]


def _claim(owners: dict[_Key, str], key: _Key, owner: str, what: str) -> Iterator[str]:
    if (other := owners.setdefault(key, owner)) != owner:
        yield f"{owner}: {what} is already that of {other}"


def _service_problems(listen: ir.Listen, service: ir.Service) -> Iterator[str]:
    where = f"service {service.name}"
    if not _NAME.fullmatch(service.name):
        yield f"service {service.name!r}: a name is letters and digits, then also '.', '_', '/' and '-'"
    yield from _ignore_problems(where, service)
    if service.protocol is ir.Protocol.TCP:
        if service.listen is None:
            yield f"{where}: a tcp service needs an address to listen on"
        yield from _address_problems(where, service.listen)
        return
    if service.listen is not None:
        yield f"{where}: only a tcp service has an address of its own; {service.protocol} services share one"
    tls = service.protocol is ir.Protocol.TLS
    if (listen.tls if tls else listen.http) is None:
        yield f"{where}: there is no listen.{'tls' if tls else 'http'} for {service.protocol} services"
    if not service.domains:
        yield f"{where}: it has no host name, so nothing would reach it"
    for domain in service.domains:
        yield from _domain_problems(where, domain, tls=tls)


def _ignore_problems(where: str, service: ir.Service) -> Iterator[str]:
    for rule in service.ignore:
        if not (rule.paths or rule.user_agents or rule.sources):
            yield f"{where}: a rule of what is ignored names neither paths, user agents nor sources"
        for source in rule.sources:
            if not _is_network(source):
                yield f"{where}: {source!r} is neither an IP address nor a range such as 10.0.0.0/8"
        if service.protocol in (ir.Protocol.TCP, ir.Protocol.TLS):
            if rule.paths or rule.user_agents:
                yield f"{where}: of {service.protocol} connections only sources are known, no paths or user agents"
            continue
        for path in rule.paths:
            if not path.startswith("/") or "*" in path[:-1]:
                yield f"{where}: {path!r} is not a path (it begins with '/', and only its end may be '*')"
        if not 200 <= rule.status < 600:
            yield f"{where}: {rule.status} is not the status of an answer (200 to 599)"


def _is_network(source: str) -> bool:
    try:
        ip_network(source, strict=False)
    except ValueError:
        return False
    return True


def _domain_problems(where: str, domain: str, *, tls: bool) -> Iterator[str]:
    name = domain.lower()
    if _DOMAIN.fullmatch(name) or (name.startswith("*.") and _DOMAIN.fullmatch(name[2:])):
        return
    if not tls and (name == "*" or (name.endswith(".*") and _DOMAIN.fullmatch(name[:-2])) or _is_ip(name)):
        return
    allowed = "'*.' before it" if tls else "'*.' before it or '.*' after it"
    yield f"{where}: {domain!r} is not a host name (no port, no scheme; {allowed} is allowed)"


@lru_cache(maxsize=4096)
def _is_ip(name: str) -> bool:
    """Remembered: to find out costs as much as the rest of a change of one endpoint."""
    try:
        ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _address_problems(where: str, address: ir.Address | None) -> Iterator[str]:
    if address is None:
        return
    yield from address_problems(where, address)


def address_problems(where: str, address: ir.Address) -> Iterator[str]:
    """Yield what is wrong with an address that Envoy shall listen on or connect to."""
    if "%" in address.host or not _is_ip(address.host) or address.host.startswith("["):
        yield f"{where}: {address.host!r} is not an IP address (without brackets)"
    if not 0 < address.port < 65536:
        yield f"{where}: {address.port} is not a port (1 to 65535)"
