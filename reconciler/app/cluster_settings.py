"""What one replica of the reconciler is told. Plain values; where they come from is the CLI's business."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address

from reconciler.envoy.admin_stats import STATS_PORTS
from reconciler.envoy.prometheus.settings import PrometheusSettings
from reconciler.kubernetes.config.host_policy import HostPolicy
from reconciler.server.credentials import Files

_FIRST, _LOCAL = IPv4Address("127.64.0.0"), "127.0.0.1"


@dataclass(frozen=True, slots=True)
class AnyIp:
    """Hold addresses in 127.64.0.0/10, all of which Linux delivers to one socket of the pod."""

    port: int
    """The holder's."""
    size = 1 << 22
    """How many hold addresses there are."""
    diverted = range(0)
    """No rule diverts ports."""

    def address(self, index: int) -> str:
        """The hold address of that index, of which there are `size`, so that they come again."""
        return f"{_FIRST + index % self.size}:{self.port}"

    def index(self, address: str) -> int | None:
        """The index of a hold address; None for one that holders do not listen at."""
        host, _, port = address.rpartition(":")
        try:
            found = int(IPv4Address(host)) - int(_FIRST)
        except ValueError:
            return None
        return found if port == str(self.port) and 0 <= found < self.size else None

    def listens_at(self, address: str) -> bool:
        """Whether a hold address is one of these."""
        return self.index(address) is not None


@dataclass(frozen=True, slots=True)
class Tproxy:
    """Hold addresses by port, which a rule diverts to the holder of the pod."""

    first: int
    last: int

    @property
    def size(self) -> int:
        """How many hold addresses there are."""
        return self.last - self.first + 1

    @property
    def diverted(self) -> range:
        """The ports of a proxy pod that a rule diverts to the holder."""
        return range(self.first, self.last + 1)

    def address(self, index: int) -> str:
        """The hold address of that index; they come again only after all others."""
        return f"{_LOCAL}:{self.first + index % self.size}"

    def index(self, address: str) -> int | None:
        """The index of a hold address; None for one that the rule does not divert."""
        host, _, port = address.rpartition(":")
        number = int(port) if port.isascii() and port.isdecimal() and len(port) <= len(str(self.last)) else 0
        return number - self.first if host == _LOCAL and self.first <= number <= self.last else None

    def listens_at(self, address: str) -> bool:
        """Whether a hold address is one of these."""
        return self.index(address) is not None


@dataclass(frozen=True, slots=True)
class SelfIssue:
    """Settings for certificates that the replicas issue themselves."""

    authority_secret: str
    """The Secret of the authority."""
    proxy_secret: str = ""
    """The Secret that the proxy's pods mount; empty: the chart has no proxy."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One replica's."""

    pod_name: str
    pod_ip: str
    grpc: str
    """`ip:port` at which Envoys, holders and other replicas join."""
    http: tuple[str, int]
    """Where metrics and health are served, for everybody."""
    hold: AnyIp | Tproxy
    inspect: tuple[str, int] | None = None
    """Where explanations are served: at the loopback, which the API server reaches for those who may."""
    http_port: int = 10000
    """Of Envoy's listener for HTTP."""
    tls_port: int = 10443
    """Of Envoy's listener for TLS."""
    namespaces: tuple[str, ...] = ()
    """Where services are looked for; empty: everywhere."""
    policy: HostPolicy = field(default_factory=HostPolicy)
    """Hosts and ports that namespaces may claim."""
    lease_namespace: str = "zenvoy-system"
    lease_name: str = "zenvoy"
    lease_duration: float = 15.0
    """Seconds until another replica takes over from one that vanished."""
    peers_service: str = "zenvoy-reconciler"
    """The headless Service of all replicas."""
    proxies_service: str = ""
    """The headless Service of all of the proxy's pods; empty: when one has ended is not known."""
    sample_interval: float = 1.0
    stats_ports: range = STATS_PORTS
    """The ports at which an Envoy may have its statistics."""
    prometheus: PrometheusSettings | None = None
    """None: each Envoy's own statistics say what is in use."""
    certificates: Files | SelfIssue | None = None
    """Certificates for mutual TLS on the gRPC port; None: plaintext, for debugging only."""
    server_name: str = ""
    """DNS name in the certificates of replicas."""

    @property
    def peer_address(self) -> str:
        """Where other replicas find this one."""
        host = f"[{self.pod_ip}]" if ":" in self.pod_ip else self.pod_ip
        return f"{host}:{self.grpc.rpartition(':')[2]}"
