"""The intermediate representation: all that Envoy must know, in words that are neither Envoy's nor the reconciler's.

Frozen values only. `resources/translation.py` turns them into Envoy's resources.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ServiceProtocol(StrEnum):
    """How Envoy takes connections for a service, and how it speaks to its endpoints."""

    HTTP = "http"
    H2C = "h2c"
    TCP = "tcp"
    TLS = "tls"


@dataclass(frozen=True, slots=True)
class SocketAddress:
    """An IP address (v4 or v6, without brackets) and a port."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class IgnoreMatch:
    """Requests, or connections, that are no use of a service. Each kind that is given must match, by any of its values.

    TCP and TLS know sources only, and have no answer to give.
    """

    paths: tuple[str, ...] = ()
    """Whole paths, or their beginnings when they end with `*`."""
    user_agents: tuple[str, ...] = ()
    """Beginnings of the User-Agent header."""
    sources: tuple[str, ...] = ()
    """IP addresses or CIDR ranges of those who connect to Envoy."""
    status: int = 200
    """The answer while the service does not run."""
    body: str = ""


@dataclass(frozen=True, slots=True)
class Upstream:
    """One service: an EDS cluster, and the listener or virtual host or filter chain that leads to it."""

    name: str
    protocol: ServiceProtocol
    domains: tuple[str, ...] = ()
    """Host names (HTTP, H2C) or server names (TLS), the service's own name included; unused for TCP."""
    listen: SocketAddress | None = None
    """The listener's address; TCP only."""
    ignore: tuple[IgnoreMatch, ...] = ()
    leaving: bool = False
    """No way leads to it any more; only what is in flight still needs its cluster."""

    @property
    def distinct_domains(self) -> list[str]:
        """The domains in lower case, without duplicates."""
        return list(dict.fromkeys(domain.lower() for domain in self.domains))


@dataclass(frozen=True, slots=True)
class Listen:
    """The shared listeners; None where there is none."""

    http: SocketAddress | None = None
    tls: SocketAddress | None = None
