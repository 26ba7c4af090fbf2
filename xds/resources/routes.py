"""HTTP routes: one virtual host for each service, in one route configuration, and one for each listener of a service.

A port in the Host header is neither matched nor removed. Virtual hosts are encoded as route configurations that contain
nothing else, so that a whole route configuration is their concatenation.

A service may ignore traffic that does not count as use: probes and scrapes. It then has a second cluster, whose
statistics belong to no service. While the service is awake, both clusters have the same endpoints. While connections
are held, the second one leads to a listener inside Envoy, which gives each rule's answer. So wake and sleep change
endpoints only. TCP and TLS have no answer to give: an ignored connection is closed at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from itertools import product
from typing import Any

from xds import ir
from xds.names import ANSWERS, CLIENT, ROUTES, SOURCE, UNKNOWN_HOST, ignored
from xds.resources.proto import Route, RouteConfiguration, encode

UNLIMITED: dict[str, int] = {}
"""The empty Duration is zero, which turns a timeout off. Protobuf converts a timedelta much more slowly."""
MAX_RETRIES = {"value": 16}
BACKOFF = {"base_interval": timedelta(milliseconds=25), "max_interval": timedelta(seconds=1)}
"""Each pause is random below a bound that doubles: 6 s in all on average, the time in which a holder restarts."""
ADDED_REQUEST_HEADERS = ("x-envoy-external-address", "x-envoy-internal")
"""Headers that Envoy adds to requests, and that no service asked for."""
_FORWARDED_FOR = {"header": {"key": "x-forwarded-for", "value": f"%FILTER_STATE({CLIENT}:PLAIN)%"}}
"""The client's address, appended to those of the proxies in front."""
_HOST = {
    "routes": [{"match": {"prefix": "/"}, "route": {"timeout": UNLIMITED}}],
    "retry_policy": {
        "retry_on": "connect-failure,refused-stream,reset-before-request",
        "num_retries": MAX_RETRIES,
        "retry_back_off": BACKOFF,
    },
}
_TEMPLATE = RouteConfiguration(virtual_hosts=[_HOST])
"""The part of each virtual host that is the same for all services."""
_NO_SUCH_HOST = {
    "status": 404,
    "body": {"inline_string": "zenvoy: no service has this host name\n"},
    "body_format": {
        "text_format_source": {"inline_string": "zenvoy: no service has the host name %REQ(:AUTHORITY)%\n"},
        "content_type": "text/plain; charset=utf-8",
    },
}
_UNKNOWN_ROUTES = [{"match": {"prefix": "/"}, "direct_response": _NO_SUCH_HOST}]
_UNKNOWN_HOST = encode(
    RouteConfiguration(virtual_hosts=[{"name": UNKNOWN_HOST, "domains": ["*"], "routes": _UNKNOWN_ROUTES}])
)
_WITHOUT_BODY = (204, 205, 304)
"""The statuses of answers that have no body (RFC 9110, 15)."""


def virtual_host(service: ir.Upstream, domains: list[str]) -> bytes:
    """Encode the virtual host of an HTTP service: all of its paths, upgrades included, without a timeout."""
    configuration = RouteConfiguration()
    configuration.CopyFrom(_TEMPLATE)
    host = configuration.virtual_hosts[0]
    host.name = service.name
    host.domains.extend(domains)
    host.routes[0].route.cluster = service.name
    if service.ignore:
        everything_else = host.routes.pop()
        action = {"cluster": ignored(service.name), "timeout": UNLIMITED}
        for rule in service.ignore:
            host.routes.extend(Route(match=match, route=action) for match in _route_matches(rule))
        host.routes.append(everything_else)
    return encode(configuration)


def answering_host(service: ir.Upstream, domains: list[str]) -> bytes:
    """Encode the virtual host that answers ignored requests to a service that is not running."""
    routes = list(_answer_routes(service.ignore))
    host = {"name": service.name, "domains": domains, "routes": routes}
    return encode(RouteConfiguration(virtual_hosts=[host]))


def route_configuration(hosts: Iterable[bytes], *, has_any_domain: bool, name: str = ROUTES) -> bytes:
    """Encode the routes of an HTTP listener; unknown hosts are answered unless a host has the domain `*`."""
    unknown = [] if has_any_domain else [_UNKNOWN_HOST]
    return b"".join((_head(name, request_headers_to_add=[_FORWARDED_FOR]), *hosts, *unknown))


def answering_configuration(hosts: Iterable[bytes], name: str = ANSWERS) -> bytes:
    """Encode the routes of a listener that answers ignored requests."""
    # Envoy adds the address of the request itself to answers 201 and 3xx.
    return b"".join((_head(name, response_headers_to_remove=["location"]), *hosts))


def _head(name: str, **headers: Any) -> bytes:
    return encode(
        RouteConfiguration(
            name=name,
            ignore_port_in_host_matching=True,
            request_headers_to_remove=ADDED_REQUEST_HEADERS,
            **headers,
        )
    )


def source_ranges(rules: Iterable[ir.IgnoreMatch]) -> list[dict[str, Any]]:
    """Return the fewest ranges that cover the sources of these rules.

    Envoy rejects a listener whose filter chains name one range twice, even in different notations.
    """
    networks = {ip_network(source, strict=False) for rule in rules for source in rule.sources}
    ipv4 = collapse_addresses(network for network in networks if isinstance(network, IPv4Network))
    ipv6 = collapse_addresses(network for network in networks if isinstance(network, IPv6Network))
    fewest: list[IPv4Network | IPv6Network] = [*ipv4, *ipv6]
    return [{"address_prefix": str(one.network_address), "prefix_len": {"value": one.prefixlen}} for one in fewest]


def _route_matches(rule: ir.IgnoreMatch) -> Iterator[dict[str, Any]]:
    """Yield the matches for the requests that a rule ignores."""
    match: dict[str, Any] = {}
    if rule.sources:
        match["filter_state"] = [{"key": SOURCE, "address_match": {"ranges": source_ranges([rule])}}]
    for path, agent in product(rule.paths or ("/*",), rule.user_agents or (None,)):
        by_path, headers = _path_match(path)
        if agent is not None:
            by_agent = {"contains": agent.strip("*")} if agent.startswith("*") else {"prefix": agent}
            headers.append({"name": "user-agent", "string_match": by_agent})
        yield {**match, **by_path, "headers": headers}


def _path_match(path: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the match for a path, and for its headers. Routes do not see the query, which is part of a header."""
    is_prefix, text = path.endswith("*"), path.removesuffix("*")
    if "?" not in path:
        return {"prefix" if is_prefix else "path": text}, []
    whole = {"prefix" if is_prefix else "exact": text}
    return {"prefix": "/"}, [{"name": ":path", "string_match": whole}]


def _answer_routes(rules: Iterable[ir.IgnoreMatch]) -> Iterator[dict[str, Any]]:
    """Yield the routes of the listener with a service's answers.

    It does not know the source of a request, and only receives requests that match a rule. Rules with sources come last
    because without the source they match other requests too.
    """
    for rule in sorted(rules, key=lambda rule: bool(rule.sources)):
        answer: dict[str, Any] = {"status": rule.status}
        if rule.body and rule.status not in _WITHOUT_BODY:
            answer["body"] = {"inline_string": rule.body}
        for match in _route_matches(ir.IgnoreMatch(rule.paths, rule.user_agents)):
            yield {"match": match, "direct_response": answer}
