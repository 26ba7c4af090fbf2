"""The options of `zenvoy up` that say where samples come from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import values

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
        callback=values.shown_url,
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
        callback=values.headers,
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--prometheus-bearer-token-file",
        help="A file with a bearer token.",
        exists=True,
        dir_okay=False,
        rich_help_panel=PANEL,
    ),
]
CaFile = Annotated[
    Path | None,
    typer.Option(
        "--prometheus-ca-file",
        help="A file with the CAs to trust.",
        exists=True,
        dir_okay=False,
        rich_help_panel=PANEL,
    ),
]


def settings(
    url: str, interval: str, headers: list[str] | None, token_file: Path | None, ca_file: Path | None
) -> PrometheusSettings:
    """What was typed, checked. Raises `typer.BadParameter`."""
    from reconciler.adapters.prometheus.settings import PrometheusSettings
    from reconciler.core.durations import duration

    seconds = duration(interval)
    if not seconds:
        raise typer.BadParameter(
            f"'{interval}' is not a duration; write it as 5s or 1m", param_hint="--scrape-interval"
        )
    return PrometheusSettings(
        url.rstrip("/"),
        seconds,
        headers=dict(_header(header) for header in headers or []),
        bearer_token_file=str(token_file) if token_file else None,
        ca_file=str(ca_file) if ca_file else None,
    )


def _header(text: str) -> tuple[str, str]:
    name, _, value = text.partition(":")
    return name.strip(), value.strip()
