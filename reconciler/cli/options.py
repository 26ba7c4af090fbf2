"""The options that say which zenvoy is meant: a running `zenvoy up`, or a cluster."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import validators

if TYPE_CHECKING:
    from reconciler.envoy.prometheus.settings import PrometheusSettings

CLUSTER, MACHINE, PROMETHEUS = "In a cluster", "On one machine", "Prometheus"
SYSTEM_NAMESPACE = "zenvoy-system"


class OutputFormat(StrEnum):
    """How something is written."""

    table = "table"
    json = "json"
    yaml = "yaml"


Name = Annotated[str, typer.Argument(help="The service; in a cluster NAME or NAMESPACE/NAME.", metavar="NAME")]
MaybeName = Annotated[
    str | None, typer.Argument(help="One service; default: all. In a cluster NAME or NAMESPACE/NAME.", metavar="[NAME]")
]
OutputOption = Annotated[OutputFormat, typer.Option("-o", "--output", help="How it is written.")]
StateDirOption = Annotated[
    Path | None,
    typer.Option(
        "--state-dir",
        envvar="ZENVOY_STATE_DIR",
        help="The state directory of the running `zenvoy up`; default: .zenvoy.",
        rich_help_panel=MACHINE,
    ),
]
Namespace = Annotated[
    str | None,
    typer.Option(
        "-n",
        "--namespace",
        help="The namespace; default: that of the kubeconfig's context.",
        metavar="NAMESPACE",
        rich_help_panel=CLUSTER,
        callback=validators.namespace,
    ),
]
Everywhere = Annotated[bool, typer.Option("-A", "--all-namespaces", help="In all namespaces.", rich_help_panel=CLUSTER)]
Context = Annotated[
    str | None,
    typer.Option(help="The kubeconfig's context; default: its current one.", metavar="NAME", rich_help_panel=CLUSTER),
]
Kubeconfig = Annotated[
    Path | None,
    typer.Option(
        help="The kubeconfig; default: KUBECONFIG, ~/.kube/config, or the pod's service account.",
        metavar="FILE",
        rich_help_panel=CLUSTER,
    ),
]
System = Annotated[
    str,
    typer.Option(
        "--system-namespace",
        envvar="ZENVOY_SYSTEM_NAMESPACE",
        help="The namespace that zenvoy itself is installed in.",
        metavar="NAMESPACE",
        rich_help_panel=CLUSTER,
        callback=validators.namespace,
    ),
]
Controller = Annotated[
    str | None,
    typer.Option(
        envvar="ZENVOY_CONTROLLER",
        help="Where the controller's HTTP port is, if it is not to be asked through the API server: "
        "after `kubectl -n zenvoy-system port-forward deploy/zenvoy-reconciler 18080`, http://127.0.0.1:18080.",
        metavar="URL",
        rich_help_panel=CLUSTER,
        callback=validators.url,
    ),
]
Wait = Annotated[bool, typer.Option(help="Wait until it has come about, or until it turns out that it does not.")]
Timeout = Annotated[
    str,
    typer.Option(help="How long to wait at most.", metavar="DURATION", rich_help_panel=CLUSTER),
]


def seconds(text: str) -> float:
    """A duration that a person typed. Raises `typer.BadParameter`."""
    from reconciler.core.text import parse_duration

    found = parse_duration(text)
    if not found:
        raise typer.BadParameter(f"'{text}' is not a duration; write it as 30s or 2m", param_hint="--timeout")
    return found


PrometheusUrl = Annotated[
    str | None,
    typer.Option(
        "--prometheus",
        envvar="ZENVOY_PROMETHEUS_URL",
        help="Judge idleness by this Prometheus, which scrapes http://METRICS/envoy/metrics; default: by Envoy itself.",
        metavar="URL",
        rich_help_panel=PROMETHEUS,
        callback=validators.shown_url,
    ),
]
WithPrometheus = Annotated[
    bool,
    typer.Option("--with-prometheus", help="Start a Prometheus too, and judge by it.", rich_help_panel=PROMETHEUS),
]
ScrapeInterval = Annotated[
    str,
    typer.Option(
        "--scrape-interval", help="How often Prometheus scrapes Envoy.", metavar="DURATION", rich_help_panel=PROMETHEUS
    ),
]
PrometheusHeaders = Annotated[
    Path | None,
    typer.Option(
        "--prometheus-headers-file",
        help="A file with headers to send too, one 'Name: value' a line: X-Scope-OrgID, or Authorization.",
        exists=True,
        dir_okay=False,
        rich_help_panel=PROMETHEUS,
        callback=validators.headers_file,
    ),
]
PrometheusToken = Annotated[
    Path | None,
    typer.Option(
        "--prometheus-bearer-token-file",
        help="A file with a bearer token.",
        exists=True,
        dir_okay=False,
        rich_help_panel=PROMETHEUS,
    ),
]
PrometheusCa = Annotated[
    Path | None,
    typer.Option(
        "--prometheus-ca-file",
        help="A file with the CAs to trust.",
        exists=True,
        dir_okay=False,
        rich_help_panel=PROMETHEUS,
    ),
]


def prometheus_settings(
    url: str, interval: str, headers_file: Path | None, token_file: Path | None, ca_file: Path | None
) -> PrometheusSettings:
    """What was typed, checked. Raises `typer.BadParameter`."""
    from reconciler.core.text import parse_duration
    from reconciler.envoy.prometheus.settings import PrometheusSettings

    seconds = parse_duration(interval)
    if not seconds:
        raise typer.BadParameter(
            f"'{interval}' is not a duration; write it as 5s or 1m", param_hint="--scrape-interval"
        )
    return PrometheusSettings(
        url.rstrip("/"),
        seconds,
        headers_file=_absolute(headers_file),
        bearer_token_file=_absolute(token_file),
        ca_file=_absolute(ca_file),
    )


def _absolute(file: Path | None) -> str | None:
    """Return the path of a file that another process, elsewhere, reads."""
    return str(file.absolute()) if file else None
