"""Clusters, one or two for each service, and their endpoints.

A cluster never changes with its endpoints. It must not limit how many connections or requests are held, for how long,
or how large they are: the holder does.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from functools import cache
from typing import Any

from xds import ir
from xds.names import HELD, IGNORED_STAT, ignored, stat_name
from xds.resources import proto
from xds.resources.proto import encode, extension, packed

_UNLIMITED = {"value": 1_000_000_000}
_CONNECT_TIMEOUT = timedelta(seconds=5)
_FIRST_FETCH_TIMEOUT = timedelta(seconds=60)
"""Envoy delays its start for so long when endpoints are missing, instead of answering 503."""
_HTTP1_UPSTREAM_IDLE = timedelta(seconds=1)
"""Shorter than the 2 to 5 s after which many HTTP/1.1 servers close an idle connection. A request that is sent at that
moment cannot be retried safely."""
_H2C_UPSTREAM_IDLE = timedelta(seconds=60)
"""HTTP/2 servers announce with GOAWAY that they close a connection."""
_MOST_HEADERS, _MOST_KIB = {"value": 100_000}, {"value": 8192}
"""The limits of a response. Envoy's defaults, 100 and 60 KiB, would cut the answers of some services."""
_IS_HELD = proto.Struct(fields={HELD: {"bool_value": True}})
_HELD_METADATA = proto.Metadata(filter_metadata={"envoy.transport_socket_match": _IS_HELD})


def cluster(name: str, protocol: ir.ServiceProtocol, keepalive_seconds: int) -> bytes:
    """Encode a service's cluster."""
    own = proto.Cluster(name=name, alt_stat_name=stat_name(name)) if "." in name else proto.Cluster(name=name)
    return encode(own) + _common(protocol, keepalive_seconds)


def ignored_cluster(name: str, protocol: ir.ServiceProtocol, keepalive_seconds: int) -> bytes:
    """Encode the cluster for ignored traffic to a service. All such clusters share their statistics."""
    return encode(proto.Cluster(name=ignored(name), alt_stat_name=IGNORED_STAT)) + _common(protocol, keepalive_seconds)


def ads(initial_fetch_timeout: timedelta | dict[str, int]) -> dict[str, Any]:
    """Return a config source that means the stream on which it was received."""
    return {"ads": {}, "initial_fetch_timeout": initial_fetch_timeout, "resource_api_version": "V3"}


@cache
def _common(protocol: ir.ServiceProtocol, keepalive_seconds: int) -> bytes:
    """Encode the part of each cluster that is the same for all services with this protocol."""
    limits = {"max_connections", "max_pending_requests", "max_requests", "max_retries"}
    thresholds = [{"priority": one, **dict.fromkeys(limits, _UNLIMITED)} for one in ("DEFAULT", "HIGH")]
    return encode(
        proto.Cluster(
            type="EDS",
            eds_cluster_config={"eds_config": ads(_FIRST_FETCH_TIMEOUT)},
            connect_timeout=_CONNECT_TIMEOUT,
            upstream_connection_options={"tcp_keepalive": tcp_keepalive(keepalive_seconds)},
            circuit_breakers={"thresholds": thresholds},
            transport_socket_matches=_transport_sockets(protocol),
            typed_extension_protocol_options=_upstream_protocol(protocol),
        )
    )


def _upstream_protocol(protocol: ir.ServiceProtocol) -> dict[str, Any]:
    if not protocol.is_http:
        return {}
    http1, http2 = {"http_protocol_options": http1_options()}, {"http2_protocol_options": http2_options()}
    idle_timeout, config = _HTTP1_UPSTREAM_IDLE, {"explicit_http_config": http1}
    if protocol is ir.ServiceProtocol.H2C:
        idle_timeout, config = _H2C_UPSTREAM_IDLE, {"explicit_http_config": http2}
    elif protocol is ir.ServiceProtocol.AUTO:
        config = {"use_downstream_protocol_config": {**http1, **http2}}
    common = {"idle_timeout": idle_timeout, "max_headers_count": _MOST_HEADERS, "max_response_headers_kb": _MOST_KIB}
    options = proto.UpstreamHttpOptions(common_http_protocol_options=common, **config)
    return {options.DESCRIPTOR.full_name: packed(options)}


def _transport_sockets(protocol: ir.ServiceProtocol) -> list[dict[str, Any]]:
    """Return the transport sockets that report the client to a holder, where the connection itself does not."""
    if protocol.is_http:
        return []
    raw = extension("envoy.transport_sockets.raw_buffer", proto.RawBuffer())
    transport = proto.ProxyProtocolTransport(config={"version": "V2"}, transport_socket=raw)
    socket = extension("envoy.transport_sockets.upstream_proxy_protocol", transport)
    return [{"name": HELD, "match": _IS_HELD, "transport_socket": socket}]


def http1_options() -> dict[str, Any]:
    """Return the HTTP/1.1 options of both sides. Names of headers keep their case, and trailers are passed."""
    formatter = proto.PreserveCase(forward_reason_phrase=True, formatter_type_on_envoy_headers="PROPER_CASE")
    preserve_case = extension("envoy.http.stateful_header_formatters.preserve_case", formatter)
    return {"header_key_format": {"stateful_formatter": preserve_case}, "enable_trailers": True}


def http2_options() -> dict[str, Any]:
    """Return the HTTP/2 options of both sides. An invalid message ends its own stream, not all of the connection."""
    return {"allow_connect": True, "override_stream_error_on_invalid_http_message": {"value": True}}


def tcp_keepalive(seconds: int) -> dict[str, Any]:
    """Return the options that detect a peer that is gone without a word, in about twice this time."""
    probes = 4
    numbers = {"keepalive_time": seconds, "keepalive_interval": max(1, seconds // probes), "keepalive_probes": probes}
    return {name: {"value": number} for name, number in numbers.items()}


def socket_address(address: ir.SocketAddress) -> dict[str, Any]:
    """Return an address to listen on."""
    is_any = address.host == "::"
    return {"socket_address": {"address": address.host, "port_value": address.port, "ipv4_compat": is_any}}


def load_assignment(name: str, endpoints: Iterable[ir.SocketAddress], held: bool = False) -> bytes:
    """Encode a service's endpoints, sorted and without duplicates; `held` if they are its hold address."""
    assignment = proto.ClusterLoadAssignment(cluster_name=name)
    if distinct := sorted(set(endpoints), key=lambda address: (address.host, address.port)):
        lb_endpoints = assignment.endpoints.add().lb_endpoints
        metadata = _HELD_METADATA if held else None
        for address in distinct:
            socket = lb_endpoints.add(metadata=metadata).endpoint.address.socket_address
            socket.address, socket.port_value = address.host, address.port
            socket.ipv4_compat = address.host == "::"
    return encode(assignment)


def answers_assignment(name: str, listener: str) -> bytes:
    """Encode the endpoint for ignored traffic to a service that is not running: Envoy's own listener with answers."""
    internal = {"envoy_internal_address": {"server_listener_name": listener}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": internal}}]}]
    return encode(proto.ClusterLoadAssignment(cluster_name=ignored(name), endpoints=endpoints))
