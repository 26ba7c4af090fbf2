"""The options of `zenvoy up` that say where samples come from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reconciler.cli import values

if TYPE_CHECKING:
    from reconciler.envoy.prometheus.settings import PrometheusSettings

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
HeadersFile = Annotated[
    Path | None,
    typer.Option(
        "--prometheus-headers-file",
        help="A file with headers to send too, one 'Name: value' a line: X-Scope-OrgID, or Authorization.",
        exists=True,
        dir_okay=False,
        rich_help_panel=PANEL,
        callback=values.headers_file,
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
    url: str, interval: str, headers_file: Path | None, token_file: Path | None, ca_file: Path | None
) -> PrometheusSettings:
    """What was typed, checked. Raises `typer.BadParameter`."""
    from reconciler.core.durations import duration
    from reconciler.envoy.prometheus.settings import PrometheusSettings

    seconds = duration(interval)
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
