"""The settings of one replica in a cluster."""

from __future__ import annotations

from dataclasses import dataclass, field

from reconciler.core.address import join_address, split_address
from reconciler.engine.hold_addresses import AnyIp, Tproxy
from reconciler.envoy.admin_stats import STATS_PORTS
from reconciler.envoy.prometheus.settings import PrometheusSettings
from reconciler.kubernetes.config.host_policy import HostPolicy
from reconciler.ports.router import ProxySettings
from reconciler.server.credentials.material import Files


@dataclass(frozen=True, slots=True)
class SelfIssue:
    """Settings for certificates that the replicas issue themselves."""

    authority_secret: str
    """The Secret of the authority."""
    proxy_secret: str = ""
    """The Secret that the proxy's pods mount; empty: the chart has no proxy."""


@dataclass(frozen=True, slots=True)
class ReplicaSettings:
    """The settings of one replica. The CLI makes them from its options."""

    pod_name: str
    pod_ip: str
    grpc: str
    """`ip:port` for Envoys, holders and other replicas."""
    http: tuple[str, int]
    """The address of metrics and health."""
    hold: AnyIp | Tproxy
    inspect: tuple[str, int] | None = None
    """The address of explanations: on the loopback device, which authorized users reach through the API server."""
    http_port: int = 10000
    """The port of Envoy's listener for HTTP."""
    tls_port: int = 10443
    """The port of Envoy's listener for TLS."""
    proxy: ProxySettings = field(default_factory=ProxySettings)
    """The settings of Envoy's listeners."""
    capture_ports: range = range(0)
    """The ports of Envoys for captured Services; empty: no Service is captured."""
    namespaces: tuple[str, ...] = ()
    """The namespaces of services; empty: all."""
    policy: HostPolicy = field(default_factory=HostPolicy)
    """Hosts and ports that namespaces may claim."""
    lease_namespace: str = "zenvoy-system"
    lease_name: str = "zenvoy"
    lease_duration: float = 15.0
    """Seconds until another replica takes over from one that has failed."""
    peers_service: str = "zenvoy-reconciler"
    """The headless Service of all replicas."""
    proxies_service: str = ""
    """The headless Service of the proxy's pods; empty: the end of such a pod is not observed."""
    sample_interval: float = 1.0
    stats_ports: range = STATS_PORTS
    """The ports at which Envoys may serve their statistics."""
    prometheus: PrometheusSettings | None = None
    """None: samples come from the Envoys' own statistics."""
    certificates: Files | SelfIssue | None = None
    """Certificates for mutual TLS on the gRPC port; None: plaintext, for debugging only."""
    server_name: str = ""
    """DNS name in the certificates of replicas."""

    @property
    def peer_address(self) -> str:
        """The address of this replica for other replicas."""
        return join_address(self.pod_ip, split_address(self.grpc)[1])

    @property
    def listen_host(self) -> str:
        """The IP address of Envoy's listeners, of the same family as that of the gRPC port; IPv6 in brackets."""
        return "[::]" if self.grpc.startswith("[") else "0.0.0.0"
