"""What needs no reconciler: `zenvoy diagram`, `zenvoy bootstrap`, and `zenvoy drain-envoy`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from reconciler.cli import output, validators
from reconciler.cli.context import Typed
from reconciler.cli.exit_codes import Exit
from reconciler.cli.options import SYSTEM_NAMESPACE, Context, Kubeconfig, System

TLS = "Mutual TLS"


class Mode(StrEnum):
    """How Envoy asks: changes only, or everything each time."""

    delta = "delta"
    sotw = "sotw"


class BootstrapFormat(StrEnum):
    """How a bootstrap is written."""

    yaml = "yaml"
    json = "json"


Admin = Annotated[
    str,
    typer.Option(help="Envoy's admin address: ip:port, or the path of a socket.", callback=validators.address_or_path),
]
StatsAddress = Annotated[
    str | None,
    typer.Option(
        help="Show others this Envoy's statistics (/stats/prometheus) and whether it is ready (/ready) here, and tell "
        "the reconciler. Nothing else of the admin port.",
        metavar="IP:PORT",
        callback=validators.address,
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
        callback=validators.open_files,
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

    output.document(diagram())


def bootstrap_command(
    reconciler: Annotated[
        str, typer.Option(help="Where the reconciler is: host:port, or unix:path.", metavar="HOST:PORT")
    ] = "127.0.0.1:18000",
    node: Annotated[
        str, typer.Option(help="Envoy's node id; every Envoy needs its own.", callback=validators.something)
    ] = "envoy",
    admin: Admin = "127.0.0.1:9901",
    stats_address: StatsAddress = None,
    mode: Annotated[Mode, typer.Option(help="How Envoy asks: only for changes, or for everything.")] = Mode.delta,
    output_format: Annotated[
        BootstrapFormat, typer.Option("-o", "--output", help="How it is printed.")
    ] = BootstrapFormat.yaml,
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

    asked = envoy_bootstrap.BootstrapOptions(
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
            output.document(envoy_bootstrap.text(asked, as_json_text=output_format is BootstrapFormat.json))
        else:
            for path in envoy_bootstrap.write(asked, directory):
                output.echo(f"wrote {path}")
    except (ValueError, OSError) as error:
        output.echo(f"zenvoy: {error}", err=True)
        raise typer.Exit(Exit.USAGE) from None


def drain_envoy_command(
    admin: Admin = "127.0.0.1:9901",
    limit: Annotated[
        float,
        typer.Option(
            "--for", help="Seconds that clients have at most.", metavar="SECONDS", callback=validators.seconds
        ),
    ] = 60.0,
    settle: Annotated[
        float,
        typer.Option(
            help="Seconds until nobody sends new clients to an Envoy that is not ready.",
            metavar="SECONDS",
            callback=validators.seconds,
        ),
    ] = 5.0,
    quiet: Annotated[
        float,
        typer.Option(
            help="Seconds with nothing in flight after which idle clients are given up.",
            metavar="SECONDS",
            callback=validators.seconds,
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
        drained = drain.drain(admin, limit, settle, quiet, output.echo)
    except drain.EnvoyUnreachable as error:
        output.echo(f"zenvoy: {error}", err=True)
        drained = False
    if not drained:
        raise typer.Exit(Exit.FAILED)


def _node(text: str) -> str:
    from reconciler.core.identity import envoy

    try:
        return envoy(text).node
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _directory(path: Path) -> Path:
    if not path.is_dir():
        raise typer.BadParameter(f"{path} is not a directory; create it first")
    return path


def certificate(
    node: Annotated[
        str, typer.Argument(help="Node id of the Envoy, and id of its holder.", metavar="NODE", callback=_node)
    ],
    directory: Annotated[
        Path,
        typer.Option(help="Existing directory for tls.crt, tls.key and ca.crt.", metavar="PATH", callback=_directory),
    ] = Path("."),
    days: Annotated[int, typer.Option(help="Days until the certificate expires.", min=1, max=90)] = 90,
    ca_secret: Annotated[
        str, typer.Option(help="Secret of the authority.", metavar="NAME", callback=validators.name)
    ] = "zenvoy-self-issued-ca",
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    system: System = SYSTEM_NAMESPACE,
) -> None:
    """Issue a certificate for an Envoy and a holder that join a cluster from outside of the chart.

    You need the right to read the Secret of the authority. Run it again before the certificate expires: Envoy and the
    holder use the new files without a restart. They also contain authorities that will sign later.

    Examples:

      zenvoy certificate edge-1 --directory /etc/zenvoy/tls

      zenvoy bootstrap --node edge-1 --tls-cert /etc/zenvoy/tls/tls.crt …
    """
    from reconciler.cli.commands import cluster
    from reconciler.cluster_client import envoy_certificate

    typed = Typed(None, False, context, kubeconfig, system)
    found = cluster.run(typed, lambda one: envoy_certificate.issue(one, ca_secret, node, days))
    try:
        written = envoy_certificate.write(found, directory)
    except OSError as error:
        output.echo(f"zenvoy: cannot write {error.filename}: {error.strerror}", err=True)
        raise typer.Exit(Exit.FAILED) from None
    for path in written:
        output.echo(f"wrote {path}")
