"""What a person asked for: one service's settings, in the units that the code works with.

Rule: plain immutable values; where they come from (a services file, a ScaledService) is an adapter's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Protocol(StrEnum):
    """What a service speaks, as far as routing and refusing need to know."""

    HTTP = "http"
    H2C = "h2c"
    TCP = "tcp"
    TLS = "tls"

    @property
    def is_http(self) -> bool:
        return self in (Protocol.HTTP, Protocol.H2C)


class IdleBy(StrEnum):
    """Which of Envoy's figures says that a service is in use."""

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
    """What neither wakes it nor keeps it awake."""
    refusal_details: bool = False
    """Whether a refused client is told the whole reason: it may contain output of the program, and names of nodes."""
    paused: bool = False
    """Never put to sleep while true."""
    departing: bool = False
    """It is being deleted: it is woken, and stays awake until it is gone."""
