"""Limits on connections, derived from an Envoy's limit of open files.

Pure. An Envoy without a free descriptor aborts, and closes all connections. So it refuses connections before that: a
quarter of the `open_files` descriptors is reserved for listeners, admin, discovery and closing connections, and each
client needs two, one of them for the connection to its service or holder.
https://www.envoyproxy.io/docs/envoy/latest/configuration/operations/overload_manager/overload_manager
"""

from __future__ import annotations

from typing import Any

from xds.bootstrap.stats_listener import LISTENER as STATS_LISTENER
from xds.names import HTTP_LISTENER, TLS_LISTENER

LEAST_RESERVE = 128
MAX_CONNECTIONS = 1_000_000
MAX_SCRAPES = 512
"""Connections to the statistics listener: Prometheus, reconcilers and probes need a few."""
LEAST_OPEN_FILES = 256
"""The minimum with which Envoy starts reliably."""
_MONITOR = (
    "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
)


def most_connections(open_files: int) -> int:
    """Return the number of clients that an Envoy with this limit of open files accepts. Raises `ValueError`."""
    if open_files < LEAST_OPEN_FILES:
        raise ValueError(f"open files {open_files}: Envoy requires at least {LEAST_OPEN_FILES}; raise `ulimit -n`")
    return min(MAX_CONNECTIONS, (open_files - max(LEAST_RESERVE, open_files // 4)) // 2)


def overload_manager(open_files: int) -> dict[str, Any]:
    """Return the limit on the clients of all listeners; further connections are closed at once."""
    monitor = {"@type": _MONITOR, "max_active_downstream_connections": most_connections(open_files)}
    name = "envoy.resource_monitors.global_downstream_max_connections"
    return {"resource_monitors": [{"name": name, "typed_config": monitor}]}


def listener_limits(open_files: int) -> dict[str, Any]:
    """Return the limits of single listeners as runtime keys: clients of a shared one leave room for others."""
    shared = most_connections(open_files) * 3 // 4
    limits = {HTTP_LISTENER: shared, TLS_LISTENER: shared, STATS_LISTENER: min(MAX_SCRAPES, open_files // 16)}
    listeners = {name: {"connection_limit": limit} for name, limit in limits.items()}
    return {"envoy": {"resource_limits": {"listener": listeners}}}
