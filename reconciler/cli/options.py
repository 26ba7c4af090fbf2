"""Options that several commands share: the selection of a zenvoy, output, and Prometheus."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from reconciler.cli import validators
from reconciler.cluster_client.context_options import STATE_DIR_VARIABLE
from reconciler.core.record import State

if TYPE_CHECKING:
    from reconciler.envoy.prometheus.settings import PrometheusSettings

CLUSTER, MACHINE, PROMETHEUS = "In a cluster", "On one machine", "Prometheus"
READY = "ready"
"""The goal of `zenvoy wait` that is not a state."""
OutputFormat = Literal["table", "json", "yaml"]
completions: list[Callable[[typer.Context, str], list[str]]] = []
"""The functions that complete names of services. The program adds them, because they call commands."""


def complete_service(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete the name of a service."""
    return [name for complete in completions for name in complete(ctx, incomplete)]


def _service_argument(text: str, metavar: str) -> Any:
    return typer.Argument(help=text, metavar=metavar, autocompletion=complete_service)


def state_dir(text: str, **more: Any) -> Any:
    """Return an option for a state directory."""
    parser = validators.named_path
    return typer.Option("--state-dir", envvar=STATE_DIR_VARIABLE, metavar="<path>", parser=parser, help=text, **more)


def address(text: str, *flags: str, callback: Callable[..., str | None] = validators.address) -> Any:
    """Return an option for an address to serve at."""
    return typer.Option(*flags, help=text, metavar="IP:PORT", callback=callback)


Name = Annotated[str, _service_argument("Name of the service; in a cluster NAME or NAMESPACE/NAME.", "NAME")]
MaybeName = Annotated[
    str | None, _service_argument("One service; default: all. In a cluster NAME or NAMESPACE/NAME.", "[NAME]")
]
Names = Annotated[
    list[str] | None, _service_argument("Names of services; in a cluster NAME or NAMESPACE/NAME.", "[NAME]...")
]
OutputOption = Annotated[OutputFormat, typer.Option("-o", "--output", help="Output format.")]
StateDirOption = Annotated[
    Path | None, state_dir("State directory of the running `zenvoy up`; default: .zenvoy.", rich_help_panel=MACHINE)
]
Namespace = Annotated[
    str | None,
    typer.Option(
        "-n",
        "--namespace",
        help="Namespace; default: that of the kubeconfig's context.",
        metavar="NAMESPACE",
        rich_help_panel=CLUSTER,
        callback=validators.namespace,
    ),
]
Everywhere = Annotated[bool, typer.Option("-A", "--all-namespaces", help="All namespaces.", rich_help_panel=CLUSTER)]
Context = Annotated[
    str | None,
    typer.Option(
        help="Context in the kubeconfig; default: its current context.", metavar="NAME", rich_help_panel=CLUSTER
    ),
]
Kubeconfig = Annotated[
    Path | None,
    typer.Option(
        help="Kubeconfig; default: KUBECONFIG, ~/.kube/config, or the pod's service account.",
        metavar="FILE",
        rich_help_panel=CLUSTER,
    ),
]
System = Annotated[
    str,
    typer.Option(
        "--system-namespace",
        envvar="ZENVOY_SYSTEM_NAMESPACE",
        help="Namespace in which zenvoy is installed.",
        metavar="NAMESPACE",
        rich_help_panel=CLUSTER,
        callback=validators.namespace,
    ),
]
Controller = Annotated[
    str | None,
    typer.Option(
        envvar="ZENVOY_CONTROLLER",
        help="URL of the reconciler, if not through the API server. For example http://127.0.0.1:18082 after "
        "`kubectl -n zenvoy-system port-forward deploy/zenvoy-reconciler 18082`.",
        metavar="URL",
        rich_help_panel=CLUSTER,
        callback=validators.url,
    ),
]
Wait = Annotated[bool, typer.Option(help="Wait for the result.")]
Goal = Annotated[
    str,
    typer.Option(
        "--for", help=f"{READY}, or a state: {', '.join(State)}.", metavar="ready|STATE", callback=validators.goal
    ),
]
Timeout = Annotated[str, typer.Option(help="Longest wait.", metavar="DURATION")]
DEFAULT_TIMEOUT = "3m"


def seconds(text: str, flag: str = "--timeout", example: str = "30s or 2m") -> float:
    """Return a duration in seconds. Raises `typer.BadParameter`."""
    from reconciler.core.text import parse_duration

    found = parse_duration(text)
    if not found:
        raise typer.BadParameter(f"'{text}' is not a duration; use for example {example}", param_hint=flag)
    return found


def _settings_file(flag: str, text: str, callback: Callable[[Path | None], Path | None] | None = None) -> Any:
    return typer.Option(flag, help=text, exists=True, dir_okay=False, rich_help_panel=PROMETHEUS, callback=callback)


PrometheusUrl = Annotated[
    str | None,
    typer.Option(
        "--prometheus",
        envvar="ZENVOY_PROMETHEUS_URL",
        help="Read usage from this Prometheus, instead of from each Envoy. It must scrape every Envoy. `zenvoy up` "
        "serves the statistics of its Envoy at /envoy/metrics of --metrics.",
        metavar="URL",
        rich_help_panel=PROMETHEUS,
        callback=validators.url_without_password,
    ),
]
WithPrometheus = Annotated[
    bool,
    typer.Option("--with-prometheus", help="Start a Prometheus, and read usage from it.", rich_help_panel=PROMETHEUS),
]
ScrapeInterval = Annotated[
    str,
    typer.Option(
        "--scrape-interval",
        help="Interval at which Prometheus scrapes Envoy.",
        metavar="DURATION",
        rich_help_panel=PROMETHEUS,
    ),
]
PrometheusHeaders = Annotated[
    Path | None,
    _settings_file(
        "--prometheus-headers-file",
        "File with headers to send, one 'Name: value' per line; for example X-Scope-OrgID or Authorization.",
        validators.headers_file,
    ),
]
PrometheusToken = Annotated[Path | None, _settings_file("--prometheus-bearer-token-file", "File with a bearer token.")]
PrometheusCa = Annotated[Path | None, _settings_file("--prometheus-ca-file", "File with the trusted authorities.")]


def prometheus_settings(
    url: str | None, interval: str, headers_file: Path | None, token_file: Path | None, ca_file: Path | None
) -> PrometheusSettings | None:
    """Return the settings in these options; None without a URL. Raises `typer.BadParameter`."""
    from reconciler.envoy.prometheus.settings import PrometheusSettings

    if url is None:
        return None
    return PrometheusSettings(
        url.rstrip("/"),
        seconds(interval, "--scrape-interval", "5s or 1m"),
        headers_file=_absolute(headers_file),
        bearer_token_file=_absolute(token_file),
        ca_file=_absolute(ca_file),
    )


def _absolute(file: Path | None) -> str | None:
    """Return a path that a process in another directory can read."""
    return str(file.absolute()) if file else None
