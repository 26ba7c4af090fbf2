"""The HTTP routes that zenvoy gives to Envoy, built in full from envoy_data_plane's messages: what is said, and why.

Pure. Counterparts: `messages.py`, all other resources; `translate.py` and `ignoring.py`, the quick way to the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from xds import ignoring, ir
from xds.api import core_v3, matcher_v3, route_v3, xds_core_v3
from xds.names import ROUTES, SOURCE, UNKNOWN_HOST, ignored

_NEVER = timedelta(0)
_SAFE_RETRIES = "connect-failure,refused-stream,reset-before-request"
_RETRIES = 16
_BACKOFF, _BACKOFF_MAX = timedelta(milliseconds=25), timedelta(seconds=1)
"""As in `messages.py`."""


def virtual_host(name: str, domains: tuple[str, ...], ignore: tuple[ir.Ignore, ...] = ()) -> route_v3.VirtualHost:
    """Build an HTTP service's virtual host: all of its paths, upgrades included, without a time-out."""
    action = route_v3.RouteAction(cluster=name or None, timeout=_NEVER)
    past = route_v3.RouteAction(cluster=ignored(name), timeout=_NEVER)
    routes = [route_v3.Route(match=match, route=past) for rule in ignore for match in _matches(rule)]
    return route_v3.VirtualHost(
        name=name,
        domains=list(domains),
        routes=[*routes, route_v3.Route(match=route_v3.RouteMatch(prefix="/"), route=action)],
        retry_policy=route_v3.RetryPolicy(
            retry_on=_SAFE_RETRIES,
            num_retries=_RETRIES,
            retry_back_off=route_v3.RetryPolicyRetryBackOff(base_interval=_BACKOFF, max_interval=_BACKOFF_MAX),
        ),
    )


def answering_host(name: str, domains: tuple[str, ...], ignore: tuple[ir.Ignore, ...]) -> route_v3.VirtualHost:
    """Build the virtual host that answers what is ignored of a service that does not run."""
    routes = []
    for rule in ignoring.answering_order(ignore):
        body = core_v3.DataSource(inline_string=rule.body) if rule.body else None
        answer = route_v3.DirectResponseAction(status=rule.status, body=body)
        told = ir.Ignore(rule.paths, rule.user_agents)
        routes += [route_v3.Route(match=match, direct_response=answer) for match in _matches(told)]
    return route_v3.VirtualHost(name=name, domains=list(domains), routes=routes)


def _matches(rule: ir.Ignore) -> Iterator[route_v3.RouteMatch]:
    sources = []
    if rule.sources:
        networks = ignoring.networks(rule.sources)
        ranges = [
            xds_core_v3.CidrRange(address_prefix=str(n.network_address), prefix_len=n.prefixlen) for n in networks
        ]
        address = matcher_v3.AddressMatcher(ranges=ranges)
        sources = [matcher_v3.FilterStateMatcher(key=SOURCE, address_match=address)]
    for path in rule.paths or ("/*",):
        for agent in rule.user_agents or (None,):
            prefix = matcher_v3.StringMatcher(prefix=agent)
            headers = [] if agent is None else [route_v3.HeaderMatcher(name="user-agent", string_match=prefix)]
            whole, start = (None, path[:-1]) if path.endswith("*") else (path, None)
            yield route_v3.RouteMatch(prefix=start, path=whole, headers=headers, filter_state=sources)


def unknown_host() -> route_v3.VirtualHost:
    """Build the virtual host that answers for hosts that are no service's."""
    answer = route_v3.DirectResponseAction(
        status=404,
        body=core_v3.DataSource(inline_string="zenvoy: no service has this host name\n"),
        body_format=core_v3.SubstitutionFormatString(
            text_format_source=core_v3.DataSource(
                inline_string="zenvoy: no service has the host name %REQ(:AUTHORITY)%\n"
            ),
            content_type="text/plain; charset=utf-8",
        ),
    )
    return route_v3.VirtualHost(
        name=UNKNOWN_HOST,
        domains=["*"],
        routes=[route_v3.Route(match=route_v3.RouteMatch(prefix="/"), direct_response=answer)],
    )


def route_configuration(hosts: list[route_v3.VirtualHost], name: str = ROUTES) -> route_v3.RouteConfiguration:
    """Build the route configuration of the HTTP listener; a port in the Host header is neither matched nor removed."""
    return route_v3.RouteConfiguration(name=name, virtual_hosts=hosts, ignore_port_in_host_matching=True)
