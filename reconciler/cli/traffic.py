"""The options of `zenvoy up` that say where samples come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from reconciler.adapters.prometheus.settings import PrometheusSettings

PANEL = "Prometheus"
Url = Annotated[
    str | None,
    typer.Option(
        "--prometheus",
        envvar="ZENVOY_PROMETHEUS_URL",
        help="Judge idleness by this Prometheus, which scrapes http://METRICS/envoy/metrics; default: by Envoy itself.",
        metavar="URL",
        rich_help_panel=PANEL,
    ),
]
Bundled = Annotated[
    bool,
    typer.Option("--with-prometheus", help="Start a Prometheus too, and judge by it.", rich_help_panel=PANEL),
]
Interval = Annotated[
    str,
    typer.Option(
        "--scrape-interval", help="How often Prometheus scrapes Envoy.", metavar="DURATION", rich_help_panel=PANEL
    ),
]
Headers = Annotated[
    list[str] | None,
    typer.Option(
        "--prometheus-header",
        help="Send this header too, for instance 'X-Scope-OrgID: shop'. May be repeated.",
        metavar="NAME: VALUE",
        rich_help_panel=PANEL,
    ),
]
TokenFile = Annotated[
    str | None,
    typer.Option("--prometheus-bearer-token-file", help="A file with a bearer token.", rich_help_panel=PANEL),
]
CaFile = Annotated[
    str | None,
    typer.Option("--prometheus-ca-file", help="A file with the CAs to trust.", rich_help_panel=PANEL),
]


def settings(
    url: str, interval: str, headers: list[str] | None, token_file: str | None, ca_file: str | None
) -> PrometheusSettings:
    """What was typed, checked. Raises `typer.BadParameter`."""
    from reconciler.adapters.prometheus.settings import PrometheusSettings
    from reconciler.core.durations import duration

    seconds = duration(interval)
    if not seconds:
        raise typer.BadParameter(
            f"'{interval}' is not a duration; write it as 5s or 1m", param_hint="--scrape-interval"
        )
    if not url.startswith(("http://", "https://")):
        raise typer.BadParameter(f"'{url}' is no URL; write it as http://host:9090", param_hint="--prometheus")
    named = dict(_header(header) for header in headers or [])
    return PrometheusSettings(url.rstrip("/"), seconds, headers=named, bearer_token_file=token_file, ca_file=ca_file)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise typer.BadParameter(f"'{text}' is no header; write it as 'Name: value'", param_hint="--prometheus-header")
    return name.strip(), value.strip()
