"""What needs no reconciler: `zenvoy diagram`, `zenvoy bootstrap`, and `zenvoy drain-envoy`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from reconciler.cli import values, writing
from reconciler.cli.exits import Exit

TLS = "Mutual TLS"


class Mode(StrEnum):
    """How Envoy asks: changes only, or everything each time."""

    delta = "delta"
    sotw = "sotw"


class Output(StrEnum):
    """How a bootstrap is written."""

    yaml = "yaml"
    json = "json"


Admin = Annotated[
    str, typer.Option(help="Envoy's admin address: ip:port, or the path of a socket.", callback=values.address_or_path)
]
StatsAddress = Annotated[
    str | None,
    typer.Option(
        help="Show others this Envoy's statistics (/stats/prometheus) and whether it is ready (/ready) here, and tell "
        "the reconciler. Nothing else of the admin port.",
        metavar="IP:PORT",
        callback=values.address,
    ),
]
Directory = Annotated[
    Path | None,
    typer.Option(
        help="Write envoy.yaml, and what it points to, into this directory instead of printing it.",
        exists=True,
        file_okay=False,
    ),
]
Certificate = Annotated[
    str | None, typer.Option("--tls-cert", help="Envoy's certificate, PEM.", metavar="PATH", rich_help_panel=TLS)
]
Key = Annotated[str | None, typer.Option("--tls-key", help="Its key.", metavar="PATH", rich_help_panel=TLS)]
Authority = Annotated[
    str | None,
    typer.Option("--tls-ca", help="CAs of the reconciler's certificate.", metavar="PATH", rich_help_panel=TLS),
]
OpenFiles = Annotated[
    str,
    typer.Option(
        help="How many files Envoy may have open (`ulimit -n`), which limits its connections: a number, or the soft or "
        "the hard limit of this process. Envoy aborts when it lacks one, so it must really have as many.",
        metavar="NUMBER|soft|hard",
        callback=values.open_files,
    ),
]
ServerName = Annotated[
    str | None,
    typer.Option(
        "--tls-server-name",
        help="DNS name in the reconciler's certificate; default: the host of --reconciler.",
        metavar="NAME",
        rich_help_panel=TLS,
    ),
]


def diagram_command() -> None:
    """Print the state machine as a Mermaid diagram, drawn from its table.

    Example: zenvoy diagram > machine.mmd
    """
    from reconciler.core.diagram import diagram

    writing.document(diagram())


def bootstrap_command(
    reconciler: Annotated[
        str, typer.Option(help="Where the reconciler is: host:port, or unix:path.", metavar="HOST:PORT")
    ] = "127.0.0.1:18000",
    node: Annotated[
        str, typer.Option(help="Envoy's node id; every Envoy needs its own.", callback=values.something)
    ] = "envoy",
    admin: Admin = "127.0.0.1:9901",
    stats_address: StatsAddress = None,
    mode: Annotated[Mode, typer.Option(help="How Envoy asks: only for changes, or for everything.")] = Mode.delta,
    output: Annotated[Output, typer.Option("-o", "--output", help="How it is printed.")] = Output.yaml,
    directory: Directory = None,
    open_files: OpenFiles = "soft",
    tls_cert: Certificate = None,
    tls_key: Key = None,
    tls_ca: Authority = None,
    tls_server_name: ServerName = None,
) -> None:
    """Make an Envoy bootstrap for joining a reconciler.

    Certificates are read anew when they are replaced, as Kubernetes replaces a mounted Secret.

    Examples:

      zenvoy bootstrap --reconciler 10.0.0.5:18000 --node edge-1 > envoy.yaml && envoy -c envoy.yaml

      zenvoy bootstrap --node edge-1 --stats-address 10.0.0.7:9902 --directory /etc/envoy
    """
    from reconciler.app import envoy_bootstrap
    from reconciler.local.open_files import limit

    asked = envoy_bootstrap.Asked(
        reconciler,
        node,
        admin,
        mode.value,
        stats_address,
        tls_cert,
        tls_key,
        tls_ca,
        tls_server_name,
        open_files=limit(open_files),
    )
    try:
        if directory is None:
            writing.document(envoy_bootstrap.text(asked, as_json_text=output is Output.json))
        else:
            for path in envoy_bootstrap.write(asked, directory):
                writing.echo(f"wrote {path}")
    except (ValueError, OSError) as error:
        writing.echo(f"zenvoy: {error}", err=True)
        raise typer.Exit(Exit.USAGE) from None


def drain_envoy_command(
    admin: Admin = "127.0.0.1:9901",
    limit: Annotated[
        float,
        typer.Option("--for", help="Seconds that clients have at most.", metavar="SECONDS", callback=values.seconds),
    ] = 60.0,
    settle: Annotated[
        float,
        typer.Option(
            help="Seconds until nobody sends new clients to an Envoy that is not ready.",
            metavar="SECONDS",
            callback=values.seconds,
        ),
    ] = 5.0,
    quiet: Annotated[
        float,
        typer.Option(
            help="Seconds with nothing in flight after which idle clients are given up.",
            metavar="SECONDS",
            callback=values.seconds,
        ),
    ] = 10.0,
) -> None:
    """Take an Envoy out of service before it is ended: what is in flight is finished, new clients go elsewhere.

    Returns once nobody is connected, or those that are have been idle for --quiet, or --for is over.

    Example: zenvoy drain-envoy --admin 127.0.0.1:9901 --for 60

    Exit codes: 0 drained; 1 work was still in flight when --for was over, or there is no Envoy.
    """
    from reconciler.envoy import drain

    try:
        drained = drain.drain(admin, limit, settle, quiet, writing.echo)
    except drain.Gone as error:
        writing.echo(f"zenvoy: {error}", err=True)
        drained = False
    if not drained:
        raise typer.Exit(Exit.FAILED)
