"""What one replica of the reconciler is told. Plain values; where they come from is the CLI's business."""

from __future__ import annotations

from dataclasses import dataclass, field

from reconciler.app.hold_ranges import AnyIp, Tproxy
from reconciler.envoy.admin_stats import STATS_PORTS
from reconciler.envoy.prometheus.settings import PrometheusSettings
from reconciler.kubernetes.config.host_policy import HostPolicy
from reconciler.server.credentials import Files


@dataclass(frozen=True, slots=True)
class SelfIssue:
    """Settings for certificates that the replicas issue themselves."""

    authority_secret: str
    """The Secret of the authority."""
    proxy_secret: str = ""
    """The Secret that the proxy's pods mount; empty: the chart has no proxy."""


@dataclass(frozen=True, slots=True)
class ReplicaSettings:
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
