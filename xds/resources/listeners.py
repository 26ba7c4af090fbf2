"""Listeners: one for all HTTP services, one for all TLS services, and one for each service with a port of its own.

The filter chains of a TLS service are encoded as a listener that contains nothing else, so that the shared listener is
their concatenation. A listener must not limit how many connections or requests are held, for how long, or how large
they are: the holder does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from xds import ir, names
from xds.resources.clusters import ads, http1_options, http2_options, socket_address, tcp_keepalive
from xds.resources.proto import HttpConnectionManager, Listener, TcpProxy, encode, extension, message_class, packed
from xds.resources.routes import BACKOFF, MAX_RETRIES, UNLIMITED, source_ranges

_REQUEST_HEADERS_TIMEOUT = timedelta(seconds=10)
"""From a request's first byte to the end of its headers. Nothing has been sent upstream by then."""
_CLIENT_IDLE_TIMEOUT = timedelta(seconds=900)
"""For a client's connection without a request. A held connection has one."""
_MAX_STREAMS = {"value": 1024}
"""Concurrent requests on one HTTP/2 connection."""
_STREAM_WINDOW, _CONNECTION_WINDOW = {"value": 64 * 1024}, {"value": 1024 * 1024}
"""The limits on what Envoy buffers of held HTTP/2 requests, in bytes."""
_TCP_PROXY = packed(
    TcpProxy(stat_prefix="tcp", idle_timeout=UNLIMITED, max_connect_attempts=MAX_RETRIES, backoff_options=BACKOFF)
)
"""The part of each filter that is the same for all services."""
_ANSWER_OPTIONS = ir.ListenerOptions(max_headers_kib=8192, max_headers=100_000)
"""The options of the listener `answers`, which only receives requests that the HTTP listener has accepted."""
_PASSED_UPGRADES = ("websocket", "tcp", "spdy/3.1")
"""The upgrades that are passed to services, in lower case: `tcp` is that of container engines, SPDY that of Kubernetes.
Envoy can only pass upgrades that it is configured for. Their first letters differ."""
NO_HOST = "no-host.invalid"
"""The host of an HTTP/1.0 request that names none."""
_REASON = "%RESPONSE_CODE_DETAILS%"
"""Envoy's own name of the reason for an answer, such as `http1.invalid_characters`."""
_PATH_IS_RELATIVE = {
    "header_filter": {"header": {"name": ":path", "string_match": {"prefix": "/"}, "invert_match": True}}
}
_NO_ROUTE = ["NR"]
_INVALID_ANSWER = ["UPE"]
_NO_ANSWER = ["UH", "UF", "UC", "UR", "LR", "UO", "URX", "UT"]
"""Response flags: no endpoint, and a connection to it that failed, ended, or was reset."""


def http_listener(address: ir.SocketAddress, options: ir.ListenerOptions) -> bytes:
    """Encode the listener that all HTTP services share."""
    chains = [_http_chain(names.ROUTES, options)]
    filters = _proxy_protocol(options.http_proxy_protocol)
    return encode(
        Listener(name=names.HTTP_LISTENER, listener_filters=filters, filter_chains=chains, **_sockets(address, options))
    )


def tls_listener(address: ir.SocketAddress, chains: Iterable[bytes], options: ir.ListenerOptions) -> bytes:
    """Encode the listener that all TLS services share. Envoy rejects one without chains."""
    before = _proxy_protocol(options.tls_proxy_protocol)
    return b"".join((_tls_listener(before, name=names.TLS_LISTENER, **_sockets(address, options)), *chains))


def tls_filter_chains(service: ir.Upstream) -> bytes:
    """Encode a TLS service's filter chains: its server names, passed through undecrypted."""
    name = service.name
    # Some clients send the dot that ends a full name of DNS.
    server_names = [written for domain in service.distinct_domains for written in (domain, f"{domain}.")]
    chains = [_tls_filter_chain(name, {"server_names": server_names})]
    if ranges := source_ranges(service.ignore):
        match = {"server_names": server_names, "source_prefix_ranges": ranges}
        chains.append(_tls_filter_chain(names.ignored(name), match))
    return encode(Listener(filter_chains=chains))


def own_listener(service: ir.Upstream, address: ir.SocketAddress, options: ir.ListenerOptions) -> bytes:
    """Encode the listener that one TCP or HTTP service has for itself.

    Its HTTP routes are a resource of their own: Envoy's rejection names one service, and a change closes no connection.
    """
    if service.protocol.is_http:
        own = replace(options, trusted_hops=service.trusted_hops)
        chains = [_http_chain(names.own_routes_name(service.name), own)]
    else:
        chains = _tcp_chains(service)
    name = names.own_listener_name(address)
    filters = _proxy_protocol(address.port in options.tcp_proxy_protocol)
    return encode(Listener(name=name, listener_filters=filters, filter_chains=chains, **_sockets(address, options)))


def answers_listener(name: str) -> bytes:
    """Encode Envoy's own listener of this name, which answers ignored requests to services that are not running."""
    chain = {"filters": [_http_filter(_connection_manager(names.ANSWERS, name, _ANSWER_OPTIONS))]}
    return encode(Listener(name=name, internal_listener={}, filter_chains=[chain]))


def trial_of_routes(route_configuration: bytes) -> bytes:
    """Encode the listener in which routes are tried: they are part of it, so that Envoy rejects it with them."""
    manager = HttpConnectionManager(stat_prefix=names.TRIAL, http_filters=[_ROUTER])
    manager.route_config.MergeFromString(route_configuration)
    # As with routes that are discovered, which may arrive before their clusters.
    manager.route_config.validate_clusters.value = False
    chain = {"filters": [_http_filter(manager)]}
    return encode(Listener(name=names.TRIAL, internal_listener={}, filter_chains=[chain]))


def trial_of_chains(chains: Iterable[bytes]) -> bytes:
    """Encode the listener in which filter chains are tried."""
    return b"".join((_tls_listener([], name=names.TRIAL, internal_listener={}), *chains))


def _tcp_chains(service: ir.Upstream) -> list[dict[str, Any]]:
    """Return the filter chains that lead all connections to one service, or past its statistics."""
    chains: list[dict[str, Any]] = [{"filters": [_tcp_proxy(service.name)]}]
    if ranges := source_ranges(service.ignore):
        match = {"source_prefix_ranges": ranges}
        chains.append({"filter_chain_match": match, "filters": [_tcp_proxy(names.ignored(service.name))]})
    return chains


def _sockets(address: ir.SocketAddress, options: ir.ListenerOptions) -> dict[str, Any]:
    return {"address": socket_address(address), "tcp_keepalive": tcp_keepalive(options.keepalive_seconds)}


def _proxy_protocol(expected: bool) -> list[dict[str, Any]]:
    """Return the listener filter that takes the client's address from a PROXY protocol header, which is required."""
    return [_filter("listener.proxy_protocol", "ProxyProtocol")] if expected else []


def _tls_listener(before: list[dict[str, Any]], **fields: Any) -> bytes:
    return encode(Listener(listener_filters=[*before, _filter("listener.tls_inspector", "TlsInspector")], **fields))


def _tls_filter_chain(cluster: str, match: dict[str, Any]) -> dict[str, Any]:
    return {"name": cluster, "filter_chain_match": match, "filters": [_tcp_proxy(cluster)]}


def _tcp_proxy(cluster: str) -> dict[str, Any]:
    """Return the filter that joins a connection to a cluster, independent of the protocol."""
    config = {"type_url": _TCP_PROXY.type_url, "value": encode(TcpProxy(cluster=cluster)) + _TCP_PROXY.value}
    return {"name": "envoy.filters.network.tcp_proxy", "typed_config": config}


def _http_chain(routes: str, options: ir.ListenerOptions) -> dict[str, Any]:
    manager = _connection_manager(names.HTTP_LISTENER, routes, options)
    return {"filters": [_address_filter(options.trusted_hops), _http_filter(manager)]}


def _http_filter(manager: Any) -> dict[str, Any]:
    return extension("envoy.filters.network.http_connection_manager", manager)


def _address_filter(trusted_hops: int) -> dict[str, Any]:
    """Return the filter that keeps the address of the peer, which is the client unless proxies in front are trusted."""
    source = [] if trusted_hops else [_address_as(names.SOURCE, "envoy.network.ip")]
    addresses = [*source, _address_as(names.CLIENT, "envoy.string")]
    return _filter("network.set_filter_state", "Config", on_new_connection=addresses)


def _source_filters(trusted_hops: int) -> list[dict[str, Any]]:
    """Return the filter that keeps the client's address, as trusted proxies have reported it, for the routes."""
    if not trusted_hops:
        return []
    source = [_address_as(names.SOURCE, "envoy.network.ip")]
    return [_filter("http.set_filter_state", "Config", on_request_headers=source, clear_route_cache=True)]


def _address_as(key: str, factory: str) -> dict[str, Any]:
    address = {"text_format_source": {"inline_string": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"}}
    return {"object_key": key, "factory_key": factory, "format_string": address}


def _connection_manager(stat_prefix: str, routes: str, options: ir.ListenerOptions) -> Any:
    return HttpConnectionManager(
        stat_prefix=stat_prefix,
        codec_type="AUTO",
        rds={"config_source": ads(UNLIMITED), "route_config_name": routes},
        http_filters=[*_health_check(options.health_path), *_source_filters(options.trusted_hops), _ROUTER],
        upgrade_configs=[{"upgrade_type": one} for one in _PASSED_UPGRADES],
        http_protocol_options={
            **http1_options(),
            "accept_http_10": True,
            "default_host_for_http_10": NO_HOST,
            "allow_custom_methods": True,
            "ignore_http_11_upgrade": _ignored_upgrades(),
        },
        common_http_protocol_options={
            "idle_timeout": _CLIENT_IDLE_TIMEOUT,
            "max_headers_count": {"value": options.max_headers},
        },
        max_request_headers_kb={"value": options.max_headers_kib},
        # The answers to ignored requests are texts of the services file.
        local_reply_config={} if stat_prefix == names.ANSWERS else _local_replies(options),
        http2_protocol_options={
            **http2_options(),
            "max_concurrent_streams": _MAX_STREAMS,
            "initial_stream_window_size": _STREAM_WINDOW,
            "initial_connection_window_size": _CONNECTION_WINDOW,
        },
        stream_idle_timeout=UNLIMITED,
        request_timeout=UNLIMITED,
        request_headers_timeout=_REQUEST_HEADERS_TIMEOUT,
        **_client_identity(options.trusted_hops),
        strip_trailing_host_dot=True,
        generate_request_id={"value": False},
        proxy_100_continue=True,
        normalize_path={"value": False},
        path_with_escaped_slashes_action="KEEP_UNCHANGED",
        server_header_transformation="PASS_THROUGH",
    )


def _ignored_upgrades() -> list[dict[str, Any]]:
    """Return the matchers of upgrades that Envoy removes from a request, which then continues without it.

    A server may ignore an upgrade, and most do; Envoy would refuse the request with 403.
    """
    firsts = "".join(word[0] for word in _PASSED_UPGRADES)
    patterns = [f"[^{firsts}].*", *(_starts_like(word) for word in _PASSED_UPGRADES)]
    return [{"safe_regex": {"regex": f"(?i){pattern}"}} for pattern in patterns]


def _starts_like(word: str) -> str:
    """Return a regular expression for every text except this word that has its first letter.

    Envoy's regular expressions have no negation, and a limit of their size.
    """
    pattern = ".+"
    for character in reversed(word[1:]):
        pattern = f"(?:[^{character}].*|{re.escape(character)}{pattern})?"
    return word[0] + pattern


def _client_identity(trusted_hops: int) -> dict[str, Any]:
    """Return the settings for headers about the client, which only trusted proxies may set."""
    return {
        "use_remote_address": {"value": True},
        # Envoy would append its own address for a client on a loopback address; the routes append the client's.
        "skip_xff_append": True,
        "xff_num_trusted_hops": trusted_hops,
        "forward_client_cert_details": "ALWAYS_FORWARD_ONLY" if trusted_hops else "SANITIZE",
    }


def _health_check(path: str) -> list[dict[str, Any]]:
    """Return the filter that answers at this path: 200, or 503 while Envoy drains, regardless of host and query."""
    if not path:
        return []
    query = "" if "?" in path else r"(?:\?.*)?"
    match = {"name": ":path", "string_match": {"safe_regex": {"regex": re.escape(path) + query}}}
    return [_filter("http.health_check", "HealthCheck", pass_through_mode={"value": False}, headers=[match])]


def _local_replies(options: ir.ListenerOptions) -> dict[str, Any]:
    """Return the texts of the answers that Envoy itself gives: who refused a request, and why.

    The answer for an unknown host has the status 404 and its own text.
    """
    limits = f"{options.max_headers_kib} KiB (maxHeadersKiB) or {options.max_headers} headers (maxHeaders)"
    no_path = {"and_filter": {"filters": [_status(404), _PATH_IS_RELATIVE]}}
    texts = [
        (_status(431), f"the headers of the request exceed {limits}"),
        (_any(_status(400), _status(501)), f"Envoy does not accept the request: {_REASON}"),
        (_any(_flags(_NO_ROUTE), no_path), f"the request does not have the path of a service: {_REASON}"),
        (_flags(_INVALID_ANSWER), f"the answer of the service is invalid, or has another protocol: {_REASON}"),
        (_flags(_NO_ANSWER), f"the service did not answer: {_REASON}"),
    ]
    return {"mappers": [_mapper(condition, f"zenvoy: {text}\n") for condition, text in texts]}


def _mapper(condition: dict[str, Any], text: str) -> dict[str, Any]:
    return {"filter": condition, "body_format_override": {"text_format_source": {"inline_string": text}}}


def _status(code: int) -> dict[str, Any]:
    value = {"default_value": code, "runtime_key": f"zenvoy.status_{code}"}
    return {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}}


def _flags(flags: list[str]) -> dict[str, Any]:
    return {"response_flag_filter": {"flags": flags}}


def _any(*conditions: dict[str, Any]) -> dict[str, Any]:
    return {"or_filter": {"filters": list(conditions)}}


def _filter(name: str, message: str, **fields: Any) -> dict[str, Any]:
    """Return one of Envoy's filters, by the end of its name and the name of its message."""
    return extension(f"envoy.filters.{name}", message_class(f"envoy.extensions.filters.{name}.v3.{message}")(**fields))


_ROUTER = _filter("http.router", "Router", suppress_envoy_headers=True)
