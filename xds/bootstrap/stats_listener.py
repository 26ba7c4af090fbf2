"""The listener for an Envoy's statistics and readiness. It exposes nothing else of the admin port.

Pure. The admin port itself can stop Envoy and show its whole configuration, and stays on the loopback interface.
https://www.envoyproxy.io/docs/envoy/latest/operations/admin
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

ADMIN_CLUSTER = "zenvoy_admin"
LISTENER = "zenvoy_stats"
READY, SCRAPE, STATS_PATH = "/ready", "/stats/prometheus", "/stats"
ACCEPTING = "/accepting"
"""Answered with 200 from the moment that Envoy listens until its listeners are closed, also while it drains."""
STATS_QUERY = ("usedonly", "filter")
"""With both parameters, `/stats` returns only used and matching statistics; without, up to 157 MB."""
MAX_ASKED = 16
"""Concurrent requests to the admin port, whose one thread answers them one after the other."""
_TYPE = "type.googleapis.com/envoy.extensions.filters"


def address_of(text: str, what: str = "address") -> tuple[str, int]:
    """Return host and port of `ip:port`; an IPv6 address may have brackets. Raises `ValueError`."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        if not 0 < int(port) < 65536:
            raise ValueError
        return str(ip_address(host)), int(port)
    except ValueError:
        raise ValueError(f"{what} {text!r} is not valid; use ip:port, for example 10.0.0.5:9902") from None


def metadata(stats: str) -> dict[str, Any]:
    """Return the node's metadata, in which the reconciler finds the address of this Envoy's statistics."""
    host, port = address_of(stats, "stats address")
    return {"zenvoy": {"stats": f"[{host}]:{port}" if ":" in host else f"{host}:{port}"}}


def cluster(admin: dict[str, Any]) -> dict[str, Any]:
    """Return the cluster of Envoy's own admin address."""
    endpoint = {"endpoint": {"address": admin}}
    return {
        "name": ADMIN_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "circuit_breakers": {"thresholds": [{"max_connections": MAX_ASKED, "max_pending_requests": 8 * MAX_ASKED}]},
        "load_assignment": {"cluster_name": ADMIN_CLUSTER, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def listener(stats: str) -> dict[str, Any]:
    """Return the listener at `ip:port`."""
    host, port = address_of(stats, "stats address")
    manager = {
        "@type": f"{_TYPE}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": LISTENER,
        # Connections without requests are closed, because their number is limited.
        "request_headers_timeout": "5s",
        "common_http_protocol_options": {"idle_timeout": "30s"},
        "route_config": {"virtual_hosts": [{"name": LISTENER, "domains": ["*"], "routes": _routes()}]},
        "http_filters": [
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{_TYPE}.http.router.v3.Router"}}
        ],
    }
    return {
        "name": LISTENER,
        # A name of its own in the statistics, so that a scrape is not counted as a client.
        "stat_prefix": LISTENER,
        "address": {"socket_address": {"address": host, "port_value": port}},
        # Clients that use up all connections must not make Envoy seem unhealthy. It has a limit of its own.
        "ignore_global_conn_limit": True,
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }


def _routes() -> list[dict[str, Any]]:
    asked = [{"name": name, "present_match": True} for name in STATS_QUERY]
    # A scrape of 10,000 services takes Envoy seconds.
    admin = {"route": {"cluster": ADMIN_CLUSTER, "timeout": "30s"}}
    return [
        {"match": _get(ACCEPTING), "direct_response": {"status": 200}},
        {"match": _get(READY), **admin},
        {"match": _get(SCRAPE), **admin},
        {"match": _get(STATS_PATH, query_parameters=asked), **admin},
    ]


def _get(path: str, **more: Any) -> dict[str, Any]:
    only_get = {"name": ":method", "string_match": {"exact": "GET"}}
    return {"path": path, "headers": [only_get], **more}
