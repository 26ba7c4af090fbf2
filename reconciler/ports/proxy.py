"""The settings of Envoy's listeners. Pure.

The services file and the chart have the same settings, under `proxy`.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_HEADERS_KIB = 8192
"""The most that Envoy can be configured for."""
MAX_HEADERS = 100_000
MIN_KEEPALIVE_SECONDS, MAX_KEEPALIVE_SECONDS = 1, 7200


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxySettings:
    """The settings of all listeners; those without another scope apply to HTTP listeners."""

    trusted_hops: int | None = None
    """Proxies in front of HTTP listeners, whose X-Forwarded-Proto is kept; None: one if only this machine can connect.
    A listener of one service may have another number."""
    max_headers_kib: int = 256
    """The longest head of a request; a longer one is refused with 431."""
    max_headers: int = 1000
    """The most headers of a request; one with more is refused with 431."""
    health_path: str = ""
    """The path of health checks by load balancers, which HTTP listeners answer for all hosts; empty: none."""
    default_service: str = ""
    """The service for hosts that no service has; empty: they are answered with 404."""
    http_proxy_protocol: bool = False
    """Connections to the shared HTTP listener start with a PROXY protocol header, which has the client's address."""
    tls_proxy_protocol: bool = False
    tcp_proxy_protocol: frozenset[int] = frozenset()
    """The ports of services' own listeners whose connections start with one."""
    keepalive_seconds: int = 60
    """Time without data after which Envoy probes the peer of a connection; no answer in that time closes it."""
