"""The intermediate representation: the configuration of all Envoys, independent of Envoy's API and of the reconciler.

Frozen values only. `resources/translation.py` translates them into Envoy's resources.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ServiceProtocol(StrEnum):
    """The protocol in which Envoy accepts connections for a service and connects to its endpoints."""

    HTTP = "http"
    H2C = "h2c"
    AUTO = "auto"
    TCP = "tcp"
    TLS = "tls"

    @property
    def is_http(self) -> bool:
        return self in (ServiceProtocol.HTTP, ServiceProtocol.H2C, ServiceProtocol.AUTO)


@dataclass(frozen=True, slots=True)
class SocketAddress:
    """An IP address (v4 or v6, without brackets) and a port."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class IgnoreMatch:
    """Requests or connections that do not count as use of a service.

    Each criterion that is given must match, by any of its values. For TCP and TLS only `sources` is available, without
    an answer.
    """

    paths: tuple[str, ...] = ()
    """Exact paths, or prefixes if they end with `*`."""
    user_agents: tuple[str, ...] = ()
    """Prefixes of the User-Agent header, or parts of it if they start with `*`."""
    sources: tuple[str, ...] = ()
    """IP addresses or CIDR ranges of the clients."""
    status: int = 200
    """The HTTP status of the answer while the service is not running."""
    body: str = ""


@dataclass(frozen=True, slots=True)
class Upstream:
    """One service: an EDS cluster, and the listener, virtual host, or filter chain that leads to it."""

    name: str
    protocol: ServiceProtocol
    domains: tuple[str, ...] = ()
    """Host names (HTTP, H2C, AUTO) or server names (TLS), including the service's own name; unused for TCP."""
    listen: SocketAddress | None = None
    """The address of its own listener, from which everything leads to it; required for TCP, not available for TLS."""
    ignore: tuple[IgnoreMatch, ...] = ()
    leaving: bool = False
    """Removed from the configuration: nothing leads to it, and its cluster is kept for what is in flight."""
    trusted_hops: int = 0
    """The number of proxies in front of its own listener (HTTP, H2C, AUTO)."""

    @property
    def distinct_domains(self) -> list[str]:
        """The domains in lower case, without duplicates."""
        return list(dict.fromkeys(domain.lower() for domain in self.domains))


@dataclass(frozen=True, slots=True)
class ListenerOptions:
    """The settings of listeners that do not depend on a service."""

    trusted_hops: int = 0
    """The number of proxies in front of the HTTP listener that services share."""
    max_headers_kib: int = 256
    """The longest head of a request, in KiB."""
    max_headers: int = 1000
    """The most headers of a request."""
    health_path: str = ""
    """The path at which HTTP listeners answer health checks themselves, for all hosts; empty: none."""
    default_service: str = ""
    """The service for hosts that no service has; empty: they are answered with 404."""
    http_proxy_protocol: bool = False
    """Connections to the HTTP listener start with a PROXY protocol header."""
    tls_proxy_protocol: bool = False
    """Connections to the TLS listener start with one."""
    tcp_proxy_protocol: frozenset[int] = frozenset()
    """The ports of services' own listeners whose connections start with one."""
    keepalive_seconds: int = 60
    """Time without data after which the peer of a connection is probed; it is closed without an answer in that time."""


@dataclass(frozen=True, slots=True)
class Listen:
    """The addresses of the shared listeners, and their settings; None for a listener that does not exist."""

    http: SocketAddress | None = None
    tls: SocketAddress | None = None
    options: ListenerOptions = ListenerOptions()
