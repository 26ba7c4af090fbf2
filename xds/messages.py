"""Every resource that zenvoy gives to Envoy, built in full from envoy_data_plane's messages: what is said, and why.

Pure. This is the readable form and slow (0.4 to 0.7 ms to encode each): `share.py` encodes ahead of time what services
have in common, `translate.py` writes the rest itself, and the tests hold the two equal.

Nothing here may bound how many connections or requests are held, for how long, or how large they are: the holder does.
"""

from __future__ import annotations

from datetime import timedelta

from xds import ignoring, ir
from xds.api import (
    Any,
    Struct,
    Value,
    cluster_v3,
    core_v3,
    endpoint_v3,
    filter_state_v3,
    hcm_v3,
    listener_v3,
    proxy_protocol_v3,
    raw_buffer_v3,
    route_v3,
    router_v3,
    set_filter_state_v3,
    tcp_proxy_v3,
    tls_inspector_v3,
    upstream_http_v3,
)
from xds.names import (
    ANSWERS,
    HELD,
    HTTP_LISTENER,
    IGNORED_STAT,
    ROUTES,
    SOURCE,
    TLS_LISTENER,
    TRIAL,
    ignored,
    stat_name,
    tcp_listener_name,
)

_UNLIMITED = 1_000_000_000
_NEVER = timedelta(0)
_CONNECT = timedelta(seconds=5)
_FIRST_FETCH = timedelta(seconds=60)
"""A cluster without its first endpoints holds up Envoy's start for so long, rather than answer 503 at once."""
_UPSTREAM_IDLE = {ir.Protocol.HTTP: timedelta(seconds=1), ir.Protocol.H2C: timedelta(seconds=60)}
"""An HTTP/1.1 server may close a kept-alive connection at the moment that a request is sent on it, which cannot be
retried safely. Many do so after 2 to 5 s: we close first. HTTP/2 has GOAWAY for this."""
_REQUEST_HEADERS = timedelta(seconds=10)
"""From a request's first byte to the end of its headers; none has been sent anywhere by then."""
_CLIENT_IDLE = timedelta(seconds=900)
"""For a client's connection without a request; one that is held is a request."""
_STREAMS, _STREAM_WINDOW, _CONNECTION_WINDOW = 1024, 64 * 1024, 1024 * 1024
"""Of one HTTP/2 client. The windows bound what Envoy keeps of requests that are held: it reads no more than that."""
_RETRIES = 16
_BACKOFF, _BACKOFF_MAX = timedelta(milliseconds=25), timedelta(seconds=1)
"""Each pause is random below a bound that doubles: 6 s in all on average, as long as a holder takes to start again."""


def ads(initial_fetch_timeout: timedelta) -> core_v3.ConfigSource:
    """Say "over the stream that this came by"."""
    return core_v3.ConfigSource(
        ads=core_v3.AggregatedConfigSource(),
        initial_fetch_timeout=initial_fetch_timeout,
        resource_api_version=core_v3.ApiVersion.V3,
    )


def cluster(name: str, protocol: ir.Protocol) -> cluster_v3.Cluster:
    """Build a service's cluster; it never changes with its endpoints."""
    unlimited = [
        cluster_v3.CircuitBreakersThresholds(
            priority=priority,
            max_connections=_UNLIMITED,
            max_pending_requests=_UNLIMITED,
            max_requests=_UNLIMITED,
            max_retries=_UNLIMITED,
        )
        for priority in (core_v3.RoutingPriority.DEFAULT, core_v3.RoutingPriority.HIGH)
    ]
    return cluster_v3.Cluster(
        name=name,
        alt_stat_name=stat_name(name) if "." in name else "",
        type=cluster_v3.ClusterDiscoveryType.EDS,
        eds_cluster_config=cluster_v3.ClusterEdsClusterConfig(eds_config=ads(_FIRST_FETCH)),
        connect_timeout=_CONNECT,
        circuit_breakers=cluster_v3.CircuitBreakers(thresholds=unlimited),
        transport_socket_matches=_transport_sockets(protocol),
        typed_extension_protocol_options=_upstream_protocol(protocol),
    )


def ignored_cluster(name: str, protocol: ir.Protocol) -> cluster_v3.Cluster:
    """Build the cluster of what is ignored of a service; all such share their statistics, which are nobody's."""
    made = cluster(ignored(name), protocol)
    made.alt_stat_name = IGNORED_STAT
    return made


def _upstream_protocol(protocol: ir.Protocol) -> dict[str, Any]:
    explicit = upstream_http_v3.HttpProtocolOptionsExplicitHttpConfig
    if protocol is ir.Protocol.HTTP:
        config = explicit(http_protocol_options=core_v3.Http1ProtocolOptions())
    elif protocol is ir.Protocol.H2C:
        config = explicit(http2_protocol_options=core_v3.Http2ProtocolOptions(allow_connect=True))
    else:
        return {}
    options = upstream_http_v3.HttpProtocolOptions(
        common_http_protocol_options=core_v3.HttpProtocolOptions(idle_timeout=_UPSTREAM_IDLE[protocol]),
        explicit_http_config=config,
    )
    return {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": Any.pack(options)}


def _transport_sockets(protocol: ir.Protocol) -> list[cluster_v3.ClusterTransportSocketMatch]:
    """Tell a holder who its client is, where a connection itself does not say so: by the PROXY protocol."""
    if protocol not in (ir.Protocol.TCP, ir.Protocol.TLS):
        return []
    raw = core_v3.TransportSocket(
        name="envoy.transport_sockets.raw_buffer", typed_config=Any.pack(raw_buffer_v3.RawBuffer())
    )
    told = proxy_protocol_v3.ProxyProtocolUpstreamTransport(
        config=core_v3.ProxyProtocolConfig(version=core_v3.ProxyProtocolConfigVersion.V2), transport_socket=raw
    )
    proxy = core_v3.TransportSocket(name="envoy.transport_sockets.upstream_proxy_protocol", typed_config=Any.pack(told))
    return [cluster_v3.ClusterTransportSocketMatch(name=HELD, match=_is_held(), transport_socket=proxy)]


def _is_held() -> Struct:
    return Struct({HELD: Value(bool_value=True)})


def load_assignment(
    name: str, endpoints: tuple[ir.Address, ...], held: bool = False
) -> endpoint_v3.ClusterLoadAssignment:
    """Build a service's endpoints; `held` says that they are its hold address."""
    metadata = core_v3.Metadata(filter_metadata={"envoy.transport_socket_match": _is_held()}) if held else None
    lb_endpoints = [
        endpoint_v3.LbEndpoint(endpoint=endpoint_v3.Endpoint(address=_address(endpoint)), metadata=metadata)
        for endpoint in endpoints
    ]
    localities = [endpoint_v3.LocalityLbEndpoints(lb_endpoints=lb_endpoints)] if lb_endpoints else []
    return endpoint_v3.ClusterLoadAssignment(cluster_name=name, endpoints=localities)


def answers_assignment(name: str) -> endpoint_v3.ClusterLoadAssignment:
    """Build the endpoints of what is ignored of a service while it does not run: Envoy's own listener."""
    internal = core_v3.Address(envoy_internal_address=core_v3.EnvoyInternalAddress(server_listener_name=ANSWERS))
    lb_endpoints = [endpoint_v3.LbEndpoint(endpoint=endpoint_v3.Endpoint(address=internal))]
    localities = [endpoint_v3.LocalityLbEndpoints(lb_endpoints=lb_endpoints)]
    return endpoint_v3.ClusterLoadAssignment(cluster_name=ignored(name), endpoints=localities)


def _address(address: ir.Address) -> core_v3.Address:
    return core_v3.Address(
        socket_address=core_v3.SocketAddress(
            address=address.host, port_value=address.port, ipv4_compat=address.host == "::"
        )
    )


def tcp_proxy(name: str) -> listener_v3.Filter:
    """Build the filter that joins a connection to a service, whatever is spoken over it."""
    proxy = tcp_proxy_v3.TcpProxy(
        cluster=name or None,
        stat_prefix="tcp",
        idle_timeout=_NEVER,
        max_connect_attempts=_RETRIES,
        backoff_options=core_v3.BackoffStrategy(base_interval=_BACKOFF, max_interval=_BACKOFF_MAX),
    )
    return listener_v3.Filter(name="envoy.filters.network.tcp_proxy", typed_config=Any.pack(proxy))


def tcp_listener(name: str, address: ir.Address, ignore: tuple[ir.Ignore, ...] = ()) -> listener_v3.Listener:
    """Build a TCP service's own listener."""
    chains = [listener_v3.FilterChain(filters=[tcp_proxy(name)])]
    if ranges := _source_ranges(ignore):
        match = listener_v3.FilterChainMatch(source_prefix_ranges=ranges)
        chains.append(listener_v3.FilterChain(filter_chain_match=match, filters=[tcp_proxy(ignored(name))]))
    return listener_v3.Listener(name=tcp_listener_name(address), address=_address(address), filter_chains=chains)


def tls_filter_chains(
    name: str, domains: tuple[str, ...], ignore: tuple[ir.Ignore, ...] = ()
) -> list[listener_v3.FilterChain]:
    """Build a TLS service's part of the TLS listener: the server names that are its, passed through unopened."""
    match = listener_v3.FilterChainMatch(server_names=list(domains))
    chains = [listener_v3.FilterChain(name=name, filter_chain_match=match, filters=[tcp_proxy(name)])]
    if ranges := _source_ranges(ignore):
        match = listener_v3.FilterChainMatch(source_prefix_ranges=ranges, server_names=list(domains))
        past = listener_v3.FilterChain(name=ignored(name), filter_chain_match=match, filters=[tcp_proxy(ignored(name))])
        chains.append(past)
    return chains


def _source_ranges(ignore: tuple[ir.Ignore, ...]) -> list[core_v3.CidrRange]:
    networks = ignoring.networks(source for rule in ignore for source in rule.sources)
    return [core_v3.CidrRange(address_prefix=str(n.network_address), prefix_len=n.prefixlen) for n in networks]


def tls_listener(address: ir.Address, chains: list[listener_v3.FilterChain]) -> listener_v3.Listener:
    """Build the listener that all TLS services share. Envoy refuses one without chains."""
    inspector = Any.pack(tls_inspector_v3.TlsInspector())
    return listener_v3.Listener(
        name=TLS_LISTENER,
        address=_address(address),
        listener_filters=[
            listener_v3.ListenerFilter(name="envoy.filters.listener.tls_inspector", typed_config=inspector)
        ],
        filter_chains=chains,
    )


def http_listener(address: ir.Address) -> listener_v3.Listener:
    """Build the listener that all HTTP services share."""
    manager = _hcm(HTTP_LISTENER, ROUTES)
    filters = [
        listener_v3.Filter(name="envoy.filters.network.set_filter_state", typed_config=Any.pack(_source())),
        listener_v3.Filter(name="envoy.filters.network.http_connection_manager", typed_config=Any.pack(manager)),
    ]
    return listener_v3.Listener(
        name=HTTP_LISTENER, address=_address(address), filter_chains=[listener_v3.FilterChain(filters=filters)]
    )


def _source() -> set_filter_state_v3.Config:
    """Keep who connected, for routes to match: a header could be made up."""
    who = core_v3.DataSource(inline_string="%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%")
    value = filter_state_v3.FilterStateValue(
        object_key=SOURCE,
        factory_key="envoy.network.ip",
        format_string=core_v3.SubstitutionFormatString(text_format_source=who),
    )
    return set_filter_state_v3.Config(on_new_connection=[value])


def trial_of_routes(routes: route_v3.RouteConfiguration) -> listener_v3.Listener:
    """Build the listener inside of Envoy in which routes are tried: they are part of it, so that it is rejected."""
    manager = hcm_v3.HttpConnectionManager(
        stat_prefix=TRIAL,
        route_config=routes,
        http_filters=[hcm_v3.HttpFilter(name="envoy.filters.http.router", typed_config=Any.pack(router_v3.Router()))],
    )
    # As for routes by RDS, which may come before their clusters.
    routes.validate_clusters = False
    filters = [listener_v3.Filter(name="envoy.filters.network.http_connection_manager", typed_config=Any.pack(manager))]
    return listener_v3.Listener(
        name=TRIAL,
        internal_listener=listener_v3.ListenerInternalListenerConfig(),
        filter_chains=[listener_v3.FilterChain(filters=filters)],
    )


def trial_of_chains(chains: list[listener_v3.FilterChain]) -> listener_v3.Listener:
    """Build the listener inside of Envoy in which filter chains are tried."""
    listener = tls_listener(ir.Address("", 0), chains)
    listener.name, listener.address = TRIAL, None
    listener.internal_listener = listener_v3.ListenerInternalListenerConfig()
    return listener


def answers_listener() -> listener_v3.Listener:
    """Build the listener inside of Envoy that answers what is ignored of services that do not run."""
    manager = _hcm(ANSWERS, ANSWERS)
    filters = [listener_v3.Filter(name="envoy.filters.network.http_connection_manager", typed_config=Any.pack(manager))]
    return listener_v3.Listener(
        name=ANSWERS,
        internal_listener=listener_v3.ListenerInternalListenerConfig(),
        filter_chains=[listener_v3.FilterChain(filters=filters)],
    )


def _hcm(stat_prefix: str, routes: str) -> hcm_v3.HttpConnectionManager:
    return hcm_v3.HttpConnectionManager(
        stat_prefix=stat_prefix,
        codec_type=hcm_v3.HttpConnectionManagerCodecType.AUTO,
        rds=hcm_v3.Rds(config_source=ads(_NEVER), route_config_name=routes),
        http_filters=[hcm_v3.HttpFilter(name="envoy.filters.http.router", typed_config=Any.pack(router_v3.Router()))],
        upgrade_configs=[hcm_v3.HttpConnectionManagerUpgradeConfig(upgrade_type="websocket")],
        http_protocol_options=core_v3.Http1ProtocolOptions(accept_http_10=True),
        common_http_protocol_options=core_v3.HttpProtocolOptions(idle_timeout=_CLIENT_IDLE),
        http2_protocol_options=core_v3.Http2ProtocolOptions(
            allow_connect=True,
            max_concurrent_streams=_STREAMS,
            initial_stream_window_size=_STREAM_WINDOW,
            initial_connection_window_size=_CONNECTION_WINDOW,
        ),
        stream_idle_timeout=_NEVER,
        request_timeout=_NEVER,
        request_headers_timeout=_REQUEST_HEADERS,
        use_remote_address=True,
        normalize_path=False,
        server_header_transformation=hcm_v3.HttpConnectionManagerServerHeaderTransformation.PASS_THROUGH,
    )
