"""The spec of a service, in the units that the code works with.

Rule: plain immutable values; where they come from (a services file, a ScaledService) is an adapter's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Protocol(StrEnum):
    """Protocol of a service, as far as routing and refusing depend on it."""

    HTTP = "http"
    H2C = "h2c"
    TCP = "tcp"
    TLS = "tls"

    @property
    def is_http(self) -> bool:
        return self in (Protocol.HTTP, Protocol.H2C)


class IdleBy(StrEnum):
    """The Envoy counter by which idleness is judged."""

    REQUESTS = "requests"
    CONNECTIONS = "connections"
    BYTES = "bytes"

    @property
    def one(self) -> str:
        """One of what it counts, for people."""
        return self.value.removesuffix("s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ignore:
    """Requests, or connections, that are no use of a service: probes and scrapes.

    Each kind that is given must match, by any of its values. Of TCP and TLS only sources are known.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One service. Durations are seconds."""

    name: str
    protocol: Protocol = Protocol.HTTP
    hosts: tuple[str, ...] = ()
    """Every host name (HTTP) or server name (TLS) that leads to it; none for TCP."""
    listen: str | None = None
    """`ip:port` of Envoy's listener; TCP only."""
    replicas: int | None = None
    """Replicas on waking; None: what it had last."""
    idle_after: float = 300.0
    wake_timeout: float = 60.0
    hold_timeout: float = 60.0
    drain_timeout: float = 30.0
    max_held: int = 1024
    idle_by: IdleBy = IdleBy.REQUESTS
    ignore: tuple[Ignore, ...] = ()
    """Requests or connections that neither wake it nor keep it awake."""
    refusal_details: bool = False
    """Include the whole reason in refusals; it may contain output of the program and names of nodes."""
    paused: bool = False
    """Never put to sleep while true."""
    departing: bool = False
    """True while it is being deleted: it is woken, and stays awake until it is gone."""
