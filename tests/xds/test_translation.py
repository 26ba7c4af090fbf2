"""envoy-data-plane reads what `xds` encodes as protobuf does, and finds each service's settings in it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import betterproto2
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.xds.oracle import MESSAGES
from xds import ir
from xds.names import ANSWERS, CDS, EDS, IGNORED_STAT, LDS, RDS, ignored, own_listener_name, service_name, stat_name
from xds.resources import clusters, proto
from xds.resources.translation import Parts, SharedResource, parts, translation, trial

HTTP, TLS = ir.SocketAddress("127.0.0.1", 80), ir.SocketAddress("::", 443)
names = st.from_regex(r"[a-z][a-z0-9./_-]{0,200}", fullmatch=True)
domains = st.lists(st.from_regex(r"(\*\.)?[A-Za-z0-9.-]{1,200}", fullmatch=True), min_size=1, max_size=3)
addresses = st.builds(
    ir.SocketAddress, st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str), st.integers(1, 65535)
)
networks = st.one_of(
    st.ip_addresses().map(str), st.sampled_from(["10.0.0.0/8", "0.0.0.0/0", "fd00::/9", "10.1.2.3/24"])
)
some = st.lists(st.text("abc/", max_size=5), max_size=2).map(tuple)
rules = st.builds(
    ir.IgnoreMatch,
    st.lists(st.sampled_from(["/", "/healthz", "/metrics/*", "/*"]), max_size=2).map(tuple),
    some,
    st.lists(networks, max_size=2).map(tuple),
    st.integers(200, 599),
    st.sampled_from(["", "asleep\n"]),
)
services = st.builds(
    lambda name, protocol, domains, listen, is_alone, ignore: ir.Upstream(
        name, protocol, tuple(domains), listen if may_listen(protocol, is_alone) else None, tuple(ignore)
    ),
    names,
    st.sampled_from(ir.ServiceProtocol),
    domains,
    addresses,
    st.booleans(),
    st.lists(rules, max_size=3),
)


def may_listen(protocol: ir.ServiceProtocol, is_alone: bool) -> bool:
    """Return whether a service has a listener of its own: TCP always, TLS never, and HTTP if it is to be alone."""
    return protocol is ir.ServiceProtocol.TCP or (protocol.is_http and is_alone)


def oracle(type_url: str, body: bytes) -> Any:
    """Return a resource as betterproto2 reads it, after comparing that with what protobuf reads."""
    read = MESSAGES[type_url].parse(body)
    ours = proto.message_class(type_url.rpartition("/")[2]).FromString(body)
    assert plain(read) == plain(ours)
    return read


def plain(message: Any) -> Any:
    """Return a message of either library as data."""
    if isinstance(message, betterproto2.Message):
        return message.to_dict()
    return json_format.MessageToDict(message, descriptor_pool=proto.POOL)


def lower(service: ir.Upstream) -> list[str]:
    return list(dict.fromkeys(domain.lower() for domain in service.domains))


def sources(service: ir.Upstream) -> bool:
    return any(rule.sources for rule in service.ignore)


def proxied(chain: Any) -> str:
    """Return the cluster that a filter chain leads to."""
    [found] = chain.filters
    return str(found.typed_config.unpack().cluster)


@settings(max_examples=30, deadline=None)
@given(service=services)
def test_parts_any_service_have_its_clusters(service: ir.Upstream) -> None:
    found = parts(service)
    cluster = oracle(CDS, found.cluster)
    assert cluster.name == service.name
    assert cluster.alt_stat_name == (stat_name(service.name) if "." in service.name else "")
    assert bool(cluster.transport_socket_matches) == (
        service.protocol in (ir.ServiceProtocol.TCP, ir.ServiceProtocol.TLS)
    )
    assert bool(found.ignored_cluster) == bool(service.ignore)
    if service.ignore:
        past = oracle(CDS, found.ignored_cluster)
        assert (past.name, past.alt_stat_name) == (ignored(service.name), IGNORED_STAT)
        past.name, past.alt_stat_name = cluster.name, cluster.alt_stat_name
        assert past == cluster


@settings(max_examples=30, deadline=None)
@given(service=services.filter(lambda service: service.protocol.is_http))
def test_parts_http_service_have_its_routes(service: ir.Upstream) -> None:
    found = parts(service)
    [host] = oracle(RDS, found.virtual_host).virtual_hosts
    assert (host.name, host.domains) == (service.name, lower(service))
    *before, last = host.routes
    assert (last.match.prefix, last.route.cluster) == ("/", service.name)
    assert {route.route.cluster for route in before} <= {ignored(service.name)}
    expected = [
        (path, agent, bool(rule.sources))
        for rule in service.ignore
        for path in rule.paths or ("/*",)
        for agent in rule.user_agents or (None,)
    ]
    assert [matched(route.match) for route in before] == expected
    if service.ignore:
        [answering] = answering_hosts(found)
        assert (answering.name, answering.domains) == (host.name, ["*"] if service.listen else host.domains)
        answered = [(matched(r.match)[:2], r.direct_response.status, body(r.direct_response)) for r in answering.routes]
        by_rule = sorted(service.ignore, key=lambda rule: bool(rule.sources))
        assert answered == [
            ((path, agent), rule.status, rule.body)
            for rule in by_rule
            for path in rule.paths or ("/*",)
            for agent in rule.user_agents or (None,)
        ]


def answering_hosts(found: Parts) -> Any:
    """Return the virtual hosts that answer ignored requests to a service."""
    if found.answering_host:
        assert found.answers == ANSWERS
        return oracle(RDS, found.answering_host).virtual_hosts
    return routes_of(found, found.answers).virtual_hosts


def routes_of(found: Parts, listener: str) -> Any:
    """Return the routes that a service's own listener names."""
    [chain] = oracle(LDS, found.own[LDS][listener]).filter_chains
    name = chain.filters[-1].typed_config.unpack().rds.route_config_name
    routes = oracle(RDS, found.own[RDS][name])
    assert routes.name == name
    return routes


@settings(max_examples=30, deadline=None)
@given(service=services.filter(lambda one: one.protocol.is_http and one.listen), hops=st.integers(0, 100))
def test_parts_http_service_with_listen_takes_every_host(service: ir.Upstream, hops: int) -> None:
    assert service.listen
    found = parts(replace(service, trusted_hops=hops), ir.ListenerOptions(trusted_hops=7, health_path="/up"))
    name = own_listener_name(service.listen)
    listener = oracle(LDS, found.own[LDS][name])
    assert listener.address.socket_address.port_value == service.listen.port
    [host] = routes_of(found, name).virtual_hosts
    [shared] = oracle(RDS, found.virtual_host).virtual_hosts
    assert (host.domains, shared.domains) == (["*"], lower(service))
    assert (host.name, host.routes, host.retry_policy) == (shared.name, shared.routes, shared.retry_policy)
    manager = listener.filter_chains[0].filters[-1].typed_config.unpack()
    assert manager.xff_num_trusted_hops == hops
    assert manager.http_filters[0].name == "envoy.filters.http.health_check"
    without = parts(replace(service, listen=None))
    assert (found.virtual_host, found.cluster) == (without.virtual_host, without.cluster)


def matched(match: Any) -> tuple[str, str | None, bool]:
    """Return the path, the user agent, and whether sources are named."""
    [agent] = [header.string_match.prefix for header in match.headers] or [None]
    path = match.path if match.path is not None else f"{match.prefix}*"
    return path, agent, bool(match.filter_state)


def body(answer: Any) -> str:
    return answer.body.inline_string if answer.body else ""


@settings(max_examples=30, deadline=None)
@given(service=services.filter(lambda service: service.protocol in (ir.ServiceProtocol.TCP, ir.ServiceProtocol.TLS)))
def test_parts_stream_service_have_its_filter_chains(service: ir.Upstream) -> None:
    found, is_tls = parts(service), service.protocol is ir.ServiceProtocol.TLS
    [own] = [found.filter_chain] if is_tls else found.own[LDS].values()
    chains = oracle(LDS, own).filter_chains
    names = [service.name, ignored(service.name)] if sources(service) else [service.name]
    assert [proxied(chain) for chain in chains] == names
    if is_tls:
        assert [chain.name for chain in chains] == names
        written = [name for domain in lower(service) for name in (domain, f"{domain}.")]
        assert all(chain.filter_chain_match.server_names == written for chain in chains)
    if sources(service):
        assert chains[-1].filter_chain_match.source_prefix_ranges


def test_answers_assignment_leads_to_the_internal_listener() -> None:
    assignment = oracle(EDS, clusters.answers_assignment("web", ANSWERS))
    assert assignment.cluster_name == ignored("web")
    [[endpoint]] = [locality.lb_endpoints for locality in assignment.endpoints]
    assert endpoint.endpoint.address.envoy_internal_address.server_listener_name == ANSWERS


@settings(max_examples=30, deadline=None)
@given(name=names, endpoints=st.lists(addresses, max_size=4), held=st.booleans())
def test_load_assignment_any_order_is_sorted_and_distinct(
    name: str, endpoints: list[ir.SocketAddress], held: bool
) -> None:
    assignment = oracle(EDS, clusters.load_assignment(name, endpoints, held))
    found = [endpoint for locality in assignment.endpoints for endpoint in locality.lb_endpoints]
    sockets = [endpoint.endpoint.address.socket_address for endpoint in found]
    assert assignment.cluster_name == name
    assert [(socket.address, socket.port_value) for socket in sockets] == sorted(
        {(address.host, address.port) for address in endpoints}
    )
    assert all(socket.ipv4_compat == (socket.address == "::") for socket in sockets)
    assert all((endpoint.metadata is not None) == held for endpoint in found)


@settings(max_examples=20, deadline=None)
@given(chosen=st.lists(services, max_size=5, unique_by=lambda service: service.name))
def test_translation_joins_the_parts_of_all_services(chosen: list[ir.Upstream]) -> None:
    of = [parts(service) for service in chosen]
    whole = translation(ir.Listen(HTTP, TLS), of)
    for type_url, resources in whole.items():
        for name, encoded in resources.items():
            assert oracle(type_url, encoded).name == name
    hosts = [host.name for host in oracle(RDS, whole[RDS]["http"]).virtual_hosts]
    by_name = [service.name for service in chosen if service.protocol.is_http]
    assert hosts == [*by_name, "(unknown host)"]
    assert leads_to(whole) <= whole[CDS].keys()
    for kind in SharedResource:
        tried = oracle(LDS, trial(kind, of))
        assert tried.internal_listener is not None and tried.address is None
        assert in_trial(kind, tried) == in_whole(kind, of)


def leads_to(whole: dict[str, dict[str, bytes]]) -> set[str]:
    """Return the clusters that listeners and routes name; the routes that listeners name must be there."""
    filters = [
        one.typed_config.unpack()
        for encoded in whole[LDS].values()
        for chain in oracle(LDS, encoded).filter_chains
        for one in chain.filters
    ]
    routes = {one.rds.route_config_name for one in filters if getattr(one, "rds", None)}
    assert routes == whole[RDS].keys()
    hosts = [host for encoded in whole[RDS].values() for host in oracle(RDS, encoded).virtual_hosts]
    named = {route.route.cluster for host in hosts for route in host.routes if route.route}
    return named | {one.cluster for one in filters if getattr(one, "cluster", "")}


def in_trial(kind: SharedResource, listener: Any) -> list[Any]:
    if kind is SharedResource.CHAINS:
        return list(listener.filter_chains)
    [[manager]] = [chain.filters for chain in listener.filter_chains]
    configuration = manager.typed_config.unpack().route_config
    assert configuration.validate_clusters is False
    return [host for host in configuration.virtual_hosts if host.name != "(unknown host)"]


def in_whole(kind: SharedResource, of: list[Parts]) -> list[Any]:
    encoded = [(kind.type_url, part) for one in of if (part := kind.part(one))]
    read = [oracle(type_url, part) for type_url, part in encoded]
    return [
        part for one in read for part in (one.filter_chains if kind is SharedResource.CHAINS else one.virtual_hosts)
    ]


@settings(max_examples=30, deadline=None)
@given(name=names)
def test_stat_name_any_service_leads_back_to_it(name: str) -> None:
    assert "." not in stat_name(name)
    assert service_name(stat_name(name)) == name
