"""Names of Envoy's resource types, resources and statistics, and the services that they belong to."""

from __future__ import annotations

from xds import ir

CDS = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
EDS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
LDS = "type.googleapis.com/envoy.config.listener.v3.Listener"
RDS = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"

ORDER = (CDS, EDS, LDS, RDS)
"""The types that zenvoy serves, in the order in which Envoy must receive them (make before break)."""
WILDCARD = frozenset({CDS, LDS})
"""Types whose resources a client receives without naming them. A state-of-the-world response contains all of them.

https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#how-the-client-specifies-what-resources-to-return
"""

HTTP_LISTENER = "http"
TLS_LISTENER = "tls"
ROUTES = "http"
"""The route configuration of the HTTP listener."""
ANSWERS = "answers"
"""Envoy's own listener for ignored traffic to services that are not running, and its route configuration. It finds a
service by its hosts, so a service that is reached with any host has another one, `own_answers_name`."""
IGNORED_STAT = "(ignored)"
"""The `<name>` in the statistics of all ignored traffic. It is not a valid service name."""
TRIAL = "trial"
"""Envoy's own listener in which parts of a rejected resource are tried. No traffic reaches it."""
SOURCE = "zenvoy.source"
"""The filter state with a connection's source address, for routes to match."""
CLIENT = "zenvoy.client"
"""The same address as a text, for routes to send."""
UNKNOWN_HOST = "(unknown host)"
"""The virtual host for requests to unknown hosts. It is not a valid service name."""
HELD = "held"
"""The metadata of an endpoint that is a hold address, for clusters to match."""


def own_listener_name(address: ir.SocketAddress) -> str:
    """Return the name of the listener of one service, which has this TCP address for itself.

    It is named after the address, not the service. When two services swap addresses, each listener changes its cluster,
    and Envoy never sees two listeners at one address, which it would reject.
    """
    return f"tcp/[{address.host}]:{address.port}" if ":" in address.host else f"tcp/{address.host}:{address.port}"


def own_routes_name(service: str) -> str:
    """Return the name of the route configuration of an HTTP service's own listener."""
    return f"{ROUTES}/{service}"


def own_answers_name(service: str) -> str:
    """Return the name of Envoy's own listener for ignored traffic to such a service, and of its route configuration."""
    return f"{ANSWERS}/{service}"


def ignored(service: str) -> str:
    """Return the name of the cluster for ignored traffic to a service. It is not a valid service name."""
    return f"{service} {IGNORED_STAT}"


def service_of_cluster(cluster: str) -> str:
    """Return the service of a cluster, which may be the cluster for its ignored traffic."""
    return cluster.removesuffix(f" {IGNORED_STAT}")


def stat_name(service: str) -> str:
    """Return the `<name>` of Envoy's `cluster.<name>.…` statistics for a service.

    Dots are replaced by `~`, because Envoy splits names at dots when it makes Prometheus labels.
    """
    return service.replace(".", "~")


def service_name(stat: str) -> str:
    """Return the service of a `<name>` in `cluster.<name>.…`: the inverse of `stat_name`."""
    return stat.replace("~", ".")
