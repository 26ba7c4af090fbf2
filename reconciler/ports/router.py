"""Port for the router of connections to a service's endpoints or its hold address: Envoy, by xDS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

MAX_HEADERS_KIB = 8192
"""The most that Envoy can be configured for."""
MAX_HEADERS = 100_000
MIN_KEEPALIVE_SECONDS, MAX_KEEPALIVE_SECONDS = 1, 7200


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxySettings:
    """The settings of Envoy's listeners, as the services file and the chart have them under `proxy`.

    Those without another scope apply to HTTP listeners.
    """

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


@dataclass(frozen=True, slots=True)
class RouteState:
    """Acknowledgement of one service's present route."""

    service: str
    acked_at: float | None
    """Time at which the last connected Envoy acknowledged it (seconds since the epoch); None until then."""
    waiting_for: str
    """The Envoys that have not acknowledged it, for people; empty if there are none."""


Report = Callable[[RouteState], None]


class Router(Protocol):
    """Router of all services. Reports every change of `RouteState`, also when an Envoy connects or disconnects.

    It never reports from within `route`.
    """

    def route(self, service: str, endpoints: tuple[str, ...], held: bool) -> RouteState | None:
        """Route connections for `service` to these `ip:port`; return the state of the route.

        The same value again costs nothing.

        `held` is true for the hold address, to which requests of ignore rules are not routed.
        """

    def envoys(self) -> frozenset[str]:
        """Return the node ids of the Envoys that a complete sample must contain."""

    def away(self) -> frozenset[str]:
        """Return the node ids in `envoys()` that are not connected."""
