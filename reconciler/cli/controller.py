"""`zenvoy controller`: one replica of the reconciler of a cluster, which the chart runs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import traffic
from reconciler.cli.exits import Exit
from reconciler.cli.run import Log, LogStyle, _address

if TYPE_CHECKING:
    from reconciler.adapters.credentials import Certificates
    from reconciler.app.cluster.settings import AnyIp, Tproxy

PLACE, ENVOY, TLS = "Who and where", "Envoys and holders", "Mutual TLS on the gRPC port"


class HoldMode(StrEnum):
    """How connections get to the holder."""

    anyip = "anyip"
    tproxy = "tproxy"


def controller(
    pod_name: Annotated[str, typer.Option(envvar="POD_NAME", help="This replica's name.", rich_help_panel=PLACE)],
    pod_ip: Annotated[str, typer.Option(envvar="POD_IP", help="This replica's IP address.", rich_help_panel=PLACE)],
    grpc: Annotated[
        str, typer.Option(help="Where Envoys, holders and other replicas join.", metavar="IP:PORT", callback=_address)
    ] = "0.0.0.0:18000",
    metrics: Annotated[
        str,
        typer.Option(
            help="Serve /metrics, /healthz, /readyz and, for `zenvoy explain`, /v1 here.",
            metavar="IP:PORT",
            callback=_address,
        ),
    ] = "0.0.0.0:18080",
    http_port: Annotated[int, typer.Option(help="Envoy's port for HTTP.", rich_help_panel=ENVOY)] = 10000,
    tls_port: Annotated[int, typer.Option(help="Envoy's port for TLS.", rich_help_panel=ENVOY)] = 10443,
    hold_mode: Annotated[
        HoldMode, typer.Option(help="How connections get to holders.", rich_help_panel=ENVOY)
    ] = HoldMode.anyip,
    holder_port: Annotated[int, typer.Option(help="Holders' port, in mode anyip.", rich_help_panel=ENVOY)] = 18001,
    hold_ports: Annotated[
        str, typer.Option(help="Ports of hold addresses, in mode tproxy.", metavar="FIRST-LAST", rich_help_panel=ENVOY)
    ] = "20000-32767",
    namespaces: Annotated[
        str, typer.Option(help="Only services of these; default: of all.", metavar="A,B", rich_help_panel=PLACE)
    ] = "",
    lease_namespace: Annotated[str, typer.Option(help="Where the Lease is.", rich_help_panel=PLACE)] = "zenvoy-system",
    lease_name: Annotated[str, typer.Option(help="The Lease of whoever leads.", rich_help_panel=PLACE)] = "zenvoy",
    lease_duration: Annotated[
        str, typer.Option(help="When another replica takes over from one that vanished.", rich_help_panel=PLACE)
    ] = "15s",
    peers_service: Annotated[
        str, typer.Option(help="The headless Service of all replicas.", rich_help_panel=PLACE)
    ] = "zenvoy-reconciler",
    proxies_service: Annotated[
        str,
        typer.Option(
            help="The headless Service of the proxy's pods, ready or not: one that left it is missed no longer.",
            rich_help_panel=PLACE,
        ),
    ] = "",
    sample_interval: Annotated[str, typer.Option(help="How often it is asked what is in use.")] = "1s",
    prometheus: traffic.Url = None,
    scrape_interval: traffic.Interval = "15s",
    prometheus_header: traffic.Headers = None,
    prometheus_bearer_token_file: traffic.TokenFile = None,
    prometheus_ca_file: traffic.CaFile = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Our certificate, PEM.", rich_help_panel=TLS)] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key.", rich_help_panel=TLS)] = None,
    tls_ca: Annotated[Path | None, typer.Option(help="CAs of all others' certificates.", rich_help_panel=TLS)] = None,
    tls_server_name: Annotated[
        str | None, typer.Option(help="What other replicas' certificates are for.", rich_help_panel=TLS)
    ] = None,
    kubeconfig: Annotated[
        Path | None, typer.Option(help="Outside a cluster: how to reach one.", rich_help_panel=PLACE)
    ] = None,
    context: Annotated[str | None, typer.Option(help="A context of it.", rich_help_panel=PLACE)] = None,
    log_style: Log = LogStyle.plain,
) -> None:
    """Run one replica of a cluster's reconciler, in the foreground; the chart does.

    All replicas serve Envoys and holders, and wake services; whoever has the Lease puts them to sleep. SIGTERM hands
    the Lease over.

    Example, outside of the cluster:

      zenvoy controller --pod-name me --pod-ip 127.0.0.1 --kubeconfig ~/.kube/config
    """
    import asyncio

    from reconciler.adapters.kubernetes.api import NoCluster
    from reconciler.app import log
    from reconciler.app.cluster.settings import Settings
    from reconciler.app.controller import run_until_stopped
    from reconciler.app.ports_in_use import split

    log.configure(log_style.value)
    asked = prometheus and traffic.settings(
        prometheus, scrape_interval, prometheus_header, prometheus_bearer_token_file, prometheus_ca_file
    )
    settings = Settings(
        pod_name,
        pod_ip,
        grpc,
        split(metrics),
        _hold(hold_mode, holder_port, hold_ports),
        http_port=http_port,
        tls_port=tls_port,
        namespaces=tuple(name for name in namespaces.replace(" ", "").split(",") if name),
        lease_namespace=lease_namespace,
        lease_name=lease_name,
        lease_duration=_seconds(lease_duration, "--lease-duration"),
        peers_service=peers_service,
        proxies_service=proxies_service,
        sample_interval=_seconds(sample_interval, "--sample-interval"),
        prometheus=asked or None,
        certificates=_certificates(tls_cert, tls_key, tls_ca),
        server_name=tls_server_name,
    )
    try:
        asyncio.run(run_until_stopped(settings, kubeconfig, context))
    except (NoCluster, OSError) as error:
        typer.echo(f"zenvoy: {error}", err=True)
        raise typer.Exit(Exit.FAILED) from None


def _seconds(text: str, flag: str) -> float:
    from reconciler.core.durations import duration

    if seconds := duration(text):
        return seconds
    raise typer.BadParameter(f"'{text}' is not a duration; write it as 1s or 500ms", param_hint=flag)


def _hold(mode: HoldMode, port: int, ports: str) -> AnyIp | Tproxy:
    from reconciler.app.cluster.settings import AnyIp, Tproxy

    if mode is HoldMode.anyip:
        return AnyIp(port)
    first, _, last = ports.partition("-")
    if not (first.isdecimal() and last.isdecimal() and 0 < int(first) < int(last) < 65536):
        raise typer.BadParameter(f"'{ports}' is no range of ports; write it as 20000-32767", param_hint="--hold-ports")
    return Tproxy(int(first), int(last))


def _certificates(certificate: Path | None, key: Path | None, authority: Path | None) -> Certificates | None:
    from reconciler.adapters.credentials import Certificates

    if certificate is None and key is None and authority is None:
        return None
    if certificate is None or key is None or authority is None:
        raise typer.BadParameter("give --tls-cert, --tls-key and --tls-ca together")
    files = Certificates(certificate, key, authority)
    if missing := files.missing():
        raise typer.BadParameter("; ".join(missing))
    return files
