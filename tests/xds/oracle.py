"""Envoy's messages as envoy-data-plane has them: an independent reader of what `xds` encodes."""

from __future__ import annotations

import importlib
import warnings
from typing import Any as AnyMessage

from xds.names import CDS, EDS, LDS, RDS

with warnings.catch_warnings():
    # envoy_data_plane is generated for an older pydantic, which warns on import.
    warnings.simplefilter("ignore", DeprecationWarning)
    import envoy_data_plane.envoy.config.cluster.v3 as cluster_v3
    import envoy_data_plane.envoy.config.core.v3 as core_v3
    import envoy_data_plane.envoy.config.endpoint.v3 as endpoint_v3
    import envoy_data_plane.envoy.config.listener.v3 as listener_v3
    import envoy_data_plane.envoy.config.route.v3 as route_v3
    from envoy_data_plane.envoy.service.discovery.v3 import (
        DeltaDiscoveryRequest,
        DeltaDiscoveryResponse,
        DiscoveryRequest,
        DiscoveryResponse,
    )
    from envoy_data_plane.google.protobuf import Any
    from envoy_data_plane.google.rpc import Status

    for extension in (
        "filters.http.health_check",
        "filters.http.router",
        "filters.http.set_filter_state",
        "filters.listener.proxy_protocol",
        "filters.listener.tls_inspector",
        "filters.network.http_connection_manager",
        "filters.network.set_filter_state",
        "filters.network.tcp_proxy",
        "http.header_formatters.preserve_case",
        "transport_sockets.proxy_protocol",
        "transport_sockets.raw_buffer",
        "upstreams.http",
    ):  # so that these can be read within a google.protobuf.Any
        importlib.import_module(f"envoy_data_plane.envoy.extensions.{extension}.v3")

MESSAGES: dict[str, AnyMessage] = {
    CDS: cluster_v3.Cluster,
    EDS: endpoint_v3.ClusterLoadAssignment,
    LDS: listener_v3.Listener,
    RDS: route_v3.RouteConfiguration,
}
"""The message class of each type of resource."""

__all__ = [
    "MESSAGES",
    "Any",
    "DeltaDiscoveryRequest",
    "DeltaDiscoveryResponse",
    "DiscoveryRequest",
    "DiscoveryResponse",
    "Status",
    "core_v3",
    "route_v3",
]
