"""What of a service's traffic is no use of it: probes and scrapes, which go past its counters and never wake it.

Each such service has a second cluster, whose statistics no service has. While it is awake its endpoints are the
service's; while connections are held it leads to Envoy's own listener `answers`, which gives each rule's answer. So
wake and sleep touch endpoints only, here too. TCP and TLS have no answer to give: such a connection is closed at once.

Pure; `messages.py` has the readable form of the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from itertools import product

from xds import ir, names, shared
from xds.wire import field, number, text

_INTERNAL_ENDPOINT = field(1, field(1, field(3, text(1, names.ANSWERS))))


def cluster(service: ir.Service, common: bytes) -> bytes:
    """Encode the cluster of what is ignored; `common` is what all clusters of the protocol share."""
    return text(1, names.ignored(service.name)) + common + text(28, names.IGNORED_STAT)


def routes(service: ir.Service) -> bytes:
    """Encode the routes of a virtual host that come before the one for all the rest."""
    action = field(2, text(1, names.ignored(service.name)) + shared.ROUTE_ACTION)
    return b"".join(field(3, field(1, match) + action) for rule in service.ignore for match in _matches(rule))


def answering_host(service: ir.Service, domains: Iterable[str]) -> bytes:
    """Encode the virtual host of the listener `answers`."""
    encoded = b"".join(text(2, domain) for domain in domains)
    for rule in answering_order(service.ignore):
        answer = field(7, number(1, rule.status) + (field(2, text(3, rule.body)) if rule.body else b""))
        # Who asked is known to the first listener only, which let nobody come here but those who match.
        told = ir.Ignore(rule.paths, rule.user_agents)
        encoded += b"".join(field(3, field(1, match) + answer) for match in _matches(told))
    return text(1, service.name) + encoded


def answering_order(rules: Iterable[ir.Ignore]) -> list[ir.Ignore]:
    """Put those that name sources last: without the source they match what is others' too."""
    return sorted(rules, key=lambda rule: bool(rule.sources))


def source_match(service: ir.Service) -> bytes:
    """Encode the part of a filter chain's match that names sources; empty when there are none."""
    ranges = networks(source for rule in service.ignore for source in rule.sources)
    return b"".join(field(6, _range(network)) for network in ranges)


def networks(sources: Iterable[str]) -> list[IPv4Network | IPv6Network]:
    """Return the fewest ranges that cover the same addresses.

    Envoy rejects a listener whose filter chains name one range twice, in whatever notation.
    """
    found = {ip_network(source, strict=False) for source in sources}
    four = collapse_addresses(network for network in found if isinstance(network, IPv4Network))
    six = collapse_addresses(network for network in found if isinstance(network, IPv6Network))
    return [*four, *six]


def load_assignment(name: str) -> bytes:
    """Encode the endpoints of what is ignored while connections are held, for HTTP."""
    return text(1, names.ignored(name)) + field(2, field(2, _INTERNAL_ENDPOINT))


def _matches(rule: ir.Ignore) -> Iterator[bytes]:
    sources = field(16, _source_matcher(rule.sources)) if rule.sources else b""
    for path, agent in product(rule.paths or ("/*",), rule.user_agents or (None,)):
        header = b"" if agent is None else field(6, text(1, "user-agent") + field(13, text(2, agent)))
        yield (text(1, path[:-1]) if path.endswith("*") else text(2, path)) + header + sources


def _source_matcher(sources: Iterable[str]) -> bytes:
    ranges = b"".join(field(1, _range(network)) for network in networks(sources))
    return text(1, names.SOURCE) + field(3, ranges)


def _range(network: IPv4Network | IPv6Network) -> bytes:
    length = number(1, network.prefixlen) if network.prefixlen else b""
    return text(1, str(network.network_address)) + field(2, length)
