"""`zenvoy controller`: one replica of a cluster's reconciler; the chart runs it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from reconciler.cli import options, output, validators
from reconciler.cli.commands.up import Log

if TYPE_CHECKING:
    from reconciler.app.cluster_settings import ReplicaSettings, SelfIssue
    from reconciler.engine.hold_addresses import AnyIp, Tproxy
    from reconciler.kubernetes.config.host_policy import HostPolicy
    from reconciler.ports.router import ProxySettings
    from reconciler.server.credentials.material import Files

LEASE_SECONDS_MIN = 1.0
"""The duration of a Lease is a whole number of seconds."""
PLACE, ENVOY, TLS = "Identity and location", "Envoys and holders", "Mutual TLS on the gRPC port"


def _option(panel: str, text: str, callback: Callable[[str], str | None] | None = None, **more: Any) -> Any:
    return typer.Option(help=text, rich_help_panel=panel, callback=callback, **more)


_identity, _proxy_option, _tls = partial(_option, PLACE), partial(_option, ENVOY), partial(_option, TLS)
_port = partial(_proxy_option, min=1, max=65535)


def controller(
    pod_name: Annotated[str, _identity("This replica's name.", validators.name, envvar="POD_NAME")],
    pod_ip: Annotated[str, _identity("This replica's IP address.", validators.ip, envvar="POD_IP")],
    grpc: Annotated[str, options.address("Address for Envoys, holders and other replicas.")] = "0.0.0.0:18000",
    metrics: Annotated[str, options.address("Serve /metrics, /healthz and /readyz here.")] = "0.0.0.0:18080",
    inspect: Annotated[
        str,
        options.address(
            "Serve /v1, for `zenvoy explain`, at this loopback address. In a pod, users with the permission "
            "pods/portforward reach it.",
            callback=validators.loopback,
        ),
    ] = "127.0.0.1:18082",
    http_port: Annotated[int, _port("Envoy's port for HTTP services.")] = 10000,
    tls_port: Annotated[int, _port("Envoy's port for TLS services.")] = 10443,
    hold_mode: Annotated[
        Literal["anyip", "tproxy"], _proxy_option("The way in which connections reach holders.")
    ] = "anyip",
    holder_port: Annotated[int, _port("Port of holders, in mode anyip.")] = 18001,
    hold_ports: Annotated[
        str, _proxy_option("Ports of hold addresses, in mode tproxy.", metavar="FIRST-LAST")
    ] = "20000-32767",
    capture_ports: Annotated[
        str,
        _proxy_option("Ports of Envoys for captured Services; empty: no Service is captured.", metavar="FIRST-LAST"),
    ] = "",
    namespaces: Annotated[
        str, _identity("Watch only these namespaces; default: all.", validators.comma_separated, metavar="A,B")
    ] = "",
    proxy: Annotated[
        str,
        _proxy_option(
            "Settings of Envoy's listeners, as JSON: the same as `proxy` in a services file.", metavar="SETTINGS"
        ),
    ] = "{}",
    host_policy: Annotated[
        str,
        _proxy_option("Hosts and ports that namespaces may claim, as JSON: the chart's hostPolicy.", metavar="RULES"),
    ] = "[]",
    bare_names: Annotated[
        bool,
        typer.Option("--bare-names", help="Route a bare name to the only service that has it.", rich_help_panel=ENVOY),
    ] = False,
    cluster_domain: Annotated[
        str, _identity("The DNS domain of the cluster's Services.", validators.name, metavar="DOMAIN")
    ] = "cluster.local",
    lease_namespace: Annotated[str, _identity("Namespace of the Lease.", validators.namespace)] = "zenvoy-system",
    lease_name: Annotated[str, _identity("Name of the Lease for leader election.", validators.name)] = "zenvoy",
    lease_duration: Annotated[
        str, _identity("Time after which another replica replaces a leader that has disappeared.")
    ] = "15s",
    peers_service: Annotated[
        str, _identity("The headless Service of all replicas.", validators.name)
    ] = "zenvoy-reconciler",
    proxies_service: Annotated[
        str,
        _identity(
            "The headless Service of the proxy's pods, ready or not; a pod that has left it is no longer expected.",
            validators.optional_name,
        ),
    ] = "",
    sample_interval: Annotated[str, typer.Option(help="Interval between samples of usage.")] = "1s",
    stats_ports: Annotated[
        str,
        _proxy_option(
            "Ports on which Envoys may serve their statistics, at the IP address from which they connect.",
            metavar="PORT|FIRST-LAST",
            callback=validators.ports,
        ),
    ] = "9902",
    prometheus: options.PrometheusUrl = None,
    scrape_interval: options.ScrapeInterval = "15s",
    prometheus_headers_file: options.PrometheusHeaders = None,
    prometheus_bearer_token_file: options.PrometheusToken = None,
    prometheus_ca_file: options.PrometheusCa = None,
    tls_ca_secret: Annotated[
        str,
        _tls(
            "Issue certificates, and keep the authority in this Secret in the namespace of the Lease.",
            validators.optional_name,
        ),
    ] = "",
    tls_proxy_secret: Annotated[
        str, _tls("Keep the certificate of the proxy's pods in this Secret.", validators.optional_name)
    ] = "",
    tls_cert: Annotated[Path | None, _tls("Certificate of this replica (PEM).")] = None,
    tls_key: Annotated[Path | None, _tls("Private key of the certificate.")] = None,
    tls_ca: Annotated[Path | None, _tls("Authorities of all other certificates.")] = None,
    tls_server_name: Annotated[str, _tls("DNS name in the certificates of replicas.")] = "zenvoy-reconciler",
    plaintext: Annotated[
        bool, _tls("Open the gRPC port without TLS, for debugging only: every client that reaches it is trusted.")
    ] = False,
    kubeconfig: Annotated[Path | None, _identity("Outside a cluster: the kubeconfig.")] = None,
    context: Annotated[str | None, _identity("A context of the kubeconfig.")] = None,
    log_style: Log = "plain",
) -> None:
    """Run one replica of a cluster's reconciler, in the foreground. The chart runs this command.

    All replicas serve Envoys and holders, and wake services. Only the leader, which holds the Lease, puts services to
    sleep. SIGTERM releases the Lease.

    Example, outside the cluster:

      zenvoy controller --pod-name me --pod-ip 127.0.0.1 --kubeconfig ~/.kube/config --grpc 127.0.0.1:18000 --plaintext
    """
    from reconciler.app import logging
    from reconciler.app.cluster_settings import ReplicaSettings
    from reconciler.core.address import split_address

    logging.configure(log_style)
    asked = options.prometheus_settings(
        prometheus, scrape_interval, prometheus_headers_file, prometheus_bearer_token_file, prometheus_ca_file
    )
    first, _, last = stats_ports.partition("-")
    settings = ReplicaSettings(
        pod_name,
        pod_ip,
        grpc,
        split_address(metrics),
        _hold(hold_mode, holder_port, hold_ports),
        inspect=split_address(inspect),
        http_port=http_port,
        tls_port=tls_port,
        proxy=_proxy(proxy),
        capture_ports=_port_range(capture_ports, "--capture-ports", "12000-15999") if capture_ports else range(0),
        namespaces=tuple(name for name in namespaces.replace(" ", "").split(",") if name),
        policy=_policy(host_policy, bare_names, cluster_domain),
        lease_namespace=lease_namespace,
        lease_name=lease_name,
        lease_duration=_seconds(lease_duration, "--lease-duration", LEASE_SECONDS_MIN),
        peers_service=peers_service,
        proxies_service=proxies_service,
        sample_interval=_seconds(sample_interval, "--sample-interval"),
        stats_ports=range(int(first), int(last or first) + 1),
        prometheus=asked,
        certificates=_certificates((tls_cert, tls_key, tls_ca), tls_ca_secret, tls_proxy_secret, plaintext),
        server_name=tls_server_name,
    )
    _run(settings, kubeconfig, context)


def _run(settings: ReplicaSettings, kubeconfig: Path | None, context: str | None) -> None:
    import asyncio

    from reconciler.app.cluster_runtime import run_until_stopped
    from reconciler.kubernetes.client.errors import NoCluster

    try:
        asyncio.run(run_until_stopped(settings, kubeconfig, context))
    except (NoCluster, OSError) as error:
        output.fail(str(error))


def _seconds(text: str, flag: str, least: float = 0.0) -> float:
    found = options.seconds(text, flag, "1s or 500ms")
    if found < least:
        raise typer.BadParameter(f"'{text}' is too short; use at least {least:g}s", param_hint=flag)
    return found


def _hold(mode: str, port: int, ports: str) -> AnyIp | Tproxy:
    from reconciler.engine.hold_addresses import AnyIp, Tproxy

    if mode == "anyip":
        return AnyIp(port)
    return Tproxy(_port_range(ports, "--hold-ports", "20000-32767"))


def _port_range(text: str, flag: str, example: str) -> range:
    first, _, last = text.partition("-")
    if not (first.isdecimal() and last.isdecimal() and 0 < int(first) < int(last) < 65536):
        raise typer.BadParameter(f"'{text}' is not a range of ports; use for example {example}", param_hint=flag)
    return range(int(first), int(last) + 1)


def _proxy(text: str) -> ProxySettings:
    from reconciler.local.services_file.proxy import proxy_of

    found = proxy_of(text, "--proxy")
    if isinstance(found, list):
        raise typer.BadParameter("\n".join(str(problem) for problem in found), param_hint="--proxy")
    return found


def _policy(rules: str, bare_names: bool, domain: str) -> HostPolicy:
    from reconciler.kubernetes.config.host_policy import BadPolicy, parse_policy

    try:
        return parse_policy(rules, bare_names, domain)
    except BadPolicy as error:
        raise typer.BadParameter(str(error), param_hint="--host-policy") from None


def _certificates(
    paths: tuple[Path | None, Path | None, Path | None], authority_secret: str, proxy_secret: str, plaintext: bool
) -> Files | SelfIssue | None:
    from reconciler.app.cluster_settings import SelfIssue
    from reconciler.server.credentials.material import Files

    if bool(any(paths)) + bool(authority_secret) + plaintext != 1:
        raise typer.BadParameter(
            "give --tls-ca-secret, or --tls-cert, --tls-key and --tls-ca together; for debugging without TLS give "
            "--plaintext"
        )
    if proxy_secret and not authority_secret:
        raise typer.BadParameter("give --tls-ca-secret too", param_hint="--tls-proxy-secret")
    if authority_secret:
        return SelfIssue(authority_secret, proxy_secret)
    certificate, key, authority = paths
    if plaintext:
        return None
    if certificate is None or key is None or authority is None:
        raise typer.BadParameter("give --tls-cert, --tls-key and --tls-ca together")
    return Files(certificate, key, authority)
