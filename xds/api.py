"""Envoy's messages, imported in the one place that knows what importing them takes.

No code here. envoy_data_plane is generated for an older pydantic than it accepts, which warns on import. The warnings
are for its authors, and tests that turn warnings into errors could not import it.
"""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import envoy_data_plane.envoy.config.cluster.v3 as cluster_v3
    import envoy_data_plane.envoy.config.core.v3 as core_v3
    import envoy_data_plane.envoy.config.endpoint.v3 as endpoint_v3
    import envoy_data_plane.envoy.config.listener.v3 as listener_v3
    import envoy_data_plane.envoy.config.route.v3 as route_v3
    import envoy_data_plane.envoy.extensions.filters.common.set_filter_state.v3 as filter_state_v3
    import envoy_data_plane.envoy.extensions.filters.http.router.v3 as router_v3
    import envoy_data_plane.envoy.extensions.filters.listener.tls_inspector.v3 as tls_inspector_v3
    import envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 as hcm_v3
    import envoy_data_plane.envoy.extensions.filters.network.set_filter_state.v3 as set_filter_state_v3
    import envoy_data_plane.envoy.extensions.filters.network.tcp_proxy.v3 as tcp_proxy_v3
    import envoy_data_plane.envoy.extensions.transport_sockets.proxy_protocol.v3 as proxy_protocol_v3
    import envoy_data_plane.envoy.extensions.transport_sockets.raw_buffer.v3 as raw_buffer_v3
    import envoy_data_plane.envoy.extensions.upstreams.http.v3 as upstream_http_v3
    import envoy_data_plane.envoy.type.matcher.v3 as matcher_v3
    import envoy_data_plane.xds.core.v3 as xds_core_v3
    from envoy_data_plane.google.protobuf import Any, Struct, Value

__all__ = [
    "Any",
    "Struct",
    "Value",
    "cluster_v3",
    "core_v3",
    "endpoint_v3",
    "filter_state_v3",
    "hcm_v3",
    "listener_v3",
    "matcher_v3",
    "proxy_protocol_v3",
    "raw_buffer_v3",
    "route_v3",
    "router_v3",
    "set_filter_state_v3",
    "tcp_proxy_v3",
    "tls_inspector_v3",
    "upstream_http_v3",
    "xds_core_v3",
]
