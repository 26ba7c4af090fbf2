"""Names that Envoy knows things by, and how they lead back to services."""

from __future__ import annotations

from xds import ir

HTTP_LISTENER = "http"
TLS_LISTENER = "tls"
ROUTES = "http"
"""The route configuration of the HTTP listener."""
ANSWERS = "answers"
"""Envoy's own listener, and its route configuration, for what is ignored while a service does not run."""
IGNORED_STAT = "(ignored)"
"""The `<name>` in statistics of all that is ignored; no service can have it."""
TRIAL = "trial"
"""Envoy's own listener in which parts of a rejected resource are tried; nothing leads there."""
SOURCE = "zenvoy.source"
"""The filter state in which a connection's source address is kept for routes to match."""
UNKNOWN_HOST = "(unknown host)"
"""The virtual host of all requests that no service wants; no service can have this name."""
HELD = "held"
"""What is said of an endpoint that is a hold address, for clusters to match."""


def tcp_listener_name(address: ir.SocketAddress) -> str:
    """Return the name of the listener at an address.

    By the address and not by the service: when two services swap theirs, each listener changes where it leads, and
    Envoy never sees two listeners at one address, which it would reject.
    """
    return f"tcp/[{address.host}]:{address.port}" if ":" in address.host else f"tcp/{address.host}:{address.port}"


def ignored(service: str) -> str:
    """Return the name of the cluster of what is ignored of a service; no service can have it."""
    return f"{service} {IGNORED_STAT}"


def service_of_cluster(cluster: str) -> str:
    """Return the service of a cluster: the inverse of `ignored` for the cluster of what is ignored."""
    return cluster.removesuffix(f" {IGNORED_STAT}")


def stat_name(service: str) -> str:
    """Return the `<name>` of Envoy's `cluster.<name>.…` statistics for a service.

    It is the service's name, with `~` for every dot: Envoy cuts names at dots when it makes Prometheus labels.
    """
    return service.replace(".", "~")


def service_name(stat: str) -> str:
    """Return the service of a `<name>` in `cluster.<name>.…`: the inverse of `stat_name`."""
    return stat.replace("~", ".")
