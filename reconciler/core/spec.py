"""The spec of a service, in the units that the code uses.

Rule: plain immutable values; adapters read them from a services file or from ScaledServices.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Protocol(StrEnum):
    """Protocol of a service; routes and refusals depend on it."""

    HTTP = "http"
    H2C = "h2c"
    AUTO = "auto"
    """HTTP/1.1 or h2c: the one that the client speaks."""
    TCP = "tcp"
    TLS = "tls"

    @property
    def is_http(self) -> bool:
        return self in (Protocol.HTTP, Protocol.H2C, Protocol.AUTO)


PROTOCOL_WORDS = {
    Protocol.HTTP: ("http", "http1", "grpc-web", "ws", "kubernetes.io/ws"),
    Protocol.H2C: ("h2c", "http2", "grpc", "kubernetes.io/h2c"),
    Protocol.TLS: ("https", "tls", "wss", "kubernetes.io/wss", "grpcs", "ssl"),
    Protocol.TCP: ("tcp", "postgres", "postgresql", "mysql", "redis", "mongo", "mongodb", "amqp", "mqtt", "nats"),
}
"""The words for each protocol in Kubernetes: values of `appProtocol`, and first words of port names."""
PROTOCOL_OF_WORD = {word: protocol for protocol, words in PROTOCOL_WORDS.items() for word in words}


class UsageUnit(StrEnum):
    """A unit in which the use of a service is counted."""

    REQUESTS = "requests"
    CONNECTIONS = "connections"
    BYTES = "bytes"

    @property
    def one(self) -> str:
        """The counted noun in the singular, for people."""
        return self.value.removesuffix("s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ignore:
    """A rule for requests or connections that do not count as use of a service, such as probes and scrapes.

    A request matches if each non-empty field has a matching value. TCP and TLS connections have only sources.
    """

    paths: tuple[str, ...] = ()
    """Whole paths, or prefixes if they end with `*`."""
    user_agents: tuple[str, ...] = ()
    """Prefixes of the User-Agent header, or parts of it if they start with `*`."""
    sources: tuple[str, ...] = ()
    """IP addresses or CIDR ranges of clients of Envoy."""
    status: int = 200
    """Status of the response while the service does not run."""
    body: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """The spec of one service. Durations are seconds."""

    name: str
    protocol: Protocol = Protocol.HTTP
    hosts: tuple[str, ...] = ()
    """Host names (HTTP) or server names (TLS) that are routed to it; none for TCP."""
    listen: str | None = None
    """`ip:port` of its own listener of Envoy: required for TCP, not available for TLS."""
    trusted_hops: int | None = None
    """Proxies in front of its own HTTP listener; None: the default of all HTTP listeners."""
    replicas: int | None = None
    """Replicas after a wake; None: the last number while awake."""
    idle_after: float = 300.0
    wake_timeout: float = 60.0
    hold_timeout: float = 60.0
    drain_timeout: float = 30.0
    max_held: int = 1024
    idle_by: UsageUnit = UsageUnit.REQUESTS
    """The Envoy counter that decides whether it is idle."""
    wake_by: UsageUnit = UsageUnit.REQUESTS
    """The part of a client's demand that wakes it; for `BYTES` the first byte after the connection."""
    ignore: tuple[Ignore, ...] = ()
    """Requests or connections that neither wake it nor keep it awake."""
    refusal_details: bool = False
    """Include the full diagnosis in refusals; it may contain output of the program and names of nodes."""
    has_busy_check: bool = False
    """True if the service can be asked whether it works without a client."""
    paused: bool = False
    """True if it must not be put to sleep."""
    departing: bool = False
    """True while it is being deleted: it is woken, and stays awake until the deletion."""

    @property
    def waits_for_bytes(self) -> bool:
        """True if a connection without a byte does not wake it. TLS needs no wait: its first bytes name the service."""
        return self.protocol is Protocol.TCP and self.wake_by is UsageUnit.BYTES
