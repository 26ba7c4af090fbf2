"""Traffic to a service that does not count as use: probes and scrapes.

A service with such rules has a second cluster, whose statistics belong to no service. While the service is awake, both
clusters have the same endpoints. While connections are held, the second one leads to a listener inside Envoy, which
gives each rule's answer. So wake and sleep change endpoints only. TCP and TLS have no answer to give: an ignored
connection is closed at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from itertools import product
from typing import Any

from xds import ir
from xds.names import SOURCE

_WITHOUT_BODY = (204, 205, 304)
"""The statuses of answers that have no body (RFC 9110, 15)."""


def source_ranges(rules: Iterable[ir.IgnoreMatch]) -> list[dict[str, Any]]:
    """Return the fewest ranges that cover the sources of these rules.

    Envoy rejects a listener whose filter chains name one range twice, even in different notations.
    """
    networks = {ip_network(source, strict=False) for rule in rules for source in rule.sources}
    ipv4 = collapse_addresses(network for network in networks if isinstance(network, IPv4Network))
    ipv6 = collapse_addresses(network for network in networks if isinstance(network, IPv6Network))
    fewest: list[IPv4Network | IPv6Network] = [*ipv4, *ipv6]
    return [{"address_prefix": str(one.network_address), "prefix_len": {"value": one.prefixlen}} for one in fewest]


def route_matches(rule: ir.IgnoreMatch) -> Iterator[dict[str, Any]]:
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


def answer_routes(rules: Iterable[ir.IgnoreMatch]) -> Iterator[dict[str, Any]]:
    """Yield the routes of the listener with a service's answers.

    It does not know the source of a request, and only receives requests that match a rule. Rules with sources come last
    because without the source they match other requests too.
    """
    for rule in sorted(rules, key=lambda rule: bool(rule.sources)):
        answer: dict[str, Any] = {"status": rule.status}
        if rule.body and rule.status not in _WITHOUT_BODY:
            answer["body"] = {"inline_string": rule.body}
        for match in route_matches(ir.IgnoreMatch(rule.paths, rule.user_agents)):
            yield {"match": match, "direct_response": answer}
