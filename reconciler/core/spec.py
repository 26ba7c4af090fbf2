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
    paused: bool = False
    """Never put to sleep while true."""
