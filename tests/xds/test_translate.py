"""The quick encoding says what the full messages say."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from xds import api, ignoring, ir, messages, routes, translate
from xds.names import service_name, stat_name
from xds.types import CDS, LDS, RDS

HTTP, TLS = ir.Address("127.0.0.1", 80), ir.Address("::", 443)
names = st.from_regex(r"[a-z][a-z0-9./_-]{0,200}", fullmatch=True)
domains = st.lists(st.from_regex(r"(\*\.)?[A-Za-z0-9.-]{1,200}", fullmatch=True), min_size=1, max_size=3)
addresses = st.builds(ir.Address, st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str), st.integers(1, 65535))
networks = st.one_of(
    st.ip_addresses().map(str), st.sampled_from(["10.0.0.0/8", "0.0.0.0/0", "fd00::/9", "10.1.2.3/24"])
)
some = st.lists(st.text("abc/", max_size=5), max_size=2).map(tuple)
rules = st.builds(
    ir.Ignore,
    st.lists(st.sampled_from(["/", "/healthz", "/metrics/*", "/*"]), max_size=2).map(tuple),
    some,
    st.lists(networks, max_size=2).map(tuple),
    st.integers(200, 599),
    st.sampled_from(["", "asleep\n"]),
)
services = st.builds(
    lambda name, protocol, domains, listen, ignore: ir.Service(
        name, protocol, tuple(domains), listen if protocol is ir.Protocol.TCP else None, tuple(ignore)
    ),
    names,
    st.sampled_from(ir.Protocol),
    domains,
    addresses,
    st.lists(rules, max_size=3),
)


def read(message: Any) -> Any:
    """Return a message as plain data, packed messages too: their bytes may order fields in any way."""
    return message.to_dict()


def lower(service: ir.Service) -> tuple[str, ...]:
    return tuple(dict.fromkeys(domain.lower() for domain in service.domains))


@settings(max_examples=30, deadline=None)
@given(service=services)
def test_each_service_reads_as_its_full_messages(service: ir.Service) -> None:
    part = translate.parts(service)
    full = messages.cluster(service.name, service.protocol)
    assert read(api.cluster_v3.Cluster.parse(part.cluster)) == read(full)
    ignore = service.ignore
    if ignore:
        past = messages.ignored_cluster(service.name, service.protocol)
        assert read(api.cluster_v3.Cluster.parse(part.ignored_cluster)) == read(past)
    if service.protocol is ir.Protocol.TCP:
        assert service.listen is not None
        listener = messages.tcp_listener(service.name, service.listen, ignore)
        assert read(api.listener_v3.Listener.parse(part.listener)) == read(listener)
    elif service.protocol is ir.Protocol.TLS:
        listener = messages.tls_listener(TLS, messages.tls_filter_chains(service.name, lower(service), ignore))
        chains = api.listener_v3.Listener.parse(part.filter_chain).filter_chains
        assert [read(chain) for chain in chains] == [read(chain) for chain in listener.filter_chains]
    else:
        host = routes.virtual_host(service.name, lower(service), ignore)
        assert read(api.route_v3.VirtualHost.parse(part.virtual_host)) == read(host)
        if ignore:
            answers = routes.answering_host(service.name, lower(service), ignore)
            assert read(api.route_v3.VirtualHost.parse(part.answering_host)) == read(answers)


def test_what_is_ignored_is_answered_by_envoy_itself_while_connections_are_held() -> None:
    assignment = api.endpoint_v3.ClusterLoadAssignment.parse(ignoring.load_assignment("web"))
    assert read(assignment) == read(messages.answers_assignment("web"))


@settings(max_examples=30, deadline=None)
@given(name=names, endpoints=st.lists(addresses, max_size=4), held=st.booleans())
def test_endpoints_read_as_their_full_message(name: str, endpoints: list[ir.Address], held: bool) -> None:
    distinct = tuple(sorted(set(endpoints), key=lambda address: (address.host, address.port)))
    parsed = api.endpoint_v3.ClusterLoadAssignment.parse(translate.load_assignment(name, endpoints, held))
    assert read(parsed) == read(messages.load_assignment(name, distinct, held))


def test_shared_listeners_and_routes_read_as_their_full_messages() -> None:
    web = ir.Service("web", ir.Protocol.HTTP, ("web.localhost",))
    tls = ir.Service("tls", ir.Protocol.TLS, ("tls.localhost",))
    whole = translate.translation(ir.Listen(HTTP, TLS), map(translate.parts, (web, tls)))
    hosts = [routes.virtual_host("web", web.domains), routes.unknown_host()]
    chains = messages.tls_filter_chains("tls", tls.domains)
    listeners = {name: api.listener_v3.Listener.parse(body).to_dict() for name, body in whole.resources[LDS].items()}
    configurations = {
        name: api.route_v3.RouteConfiguration.parse(body).to_dict() for name, body in whole.resources[RDS].items()
    }
    assert configurations == {"http": read(routes.route_configuration(hosts))}
    assert listeners == {"http": read(messages.http_listener(HTTP)), "tls": read(messages.tls_listener(TLS, chains))}
    assert whole.resources[CDS].keys() == {"web", "tls"}


@settings(max_examples=30, deadline=None)
@given(name=names)
def test_statistics_lead_back_to_the_service(name: str) -> None:
    assert "." not in stat_name(name)
    assert service_name(stat_name(name)) == name
