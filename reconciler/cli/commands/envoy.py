"""`zenvoy bootstrap`, `certificate` and `drain-envoy`, for external Envoys, and `zenvoy diagram`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from reconciler.cli import output, validators
from reconciler.cli.options import Context, Kubeconfig, System
from reconciler.cli.output import ExitCode
from reconciler.cluster_client.context_options import SYSTEM_NAMESPACE, ContextOptions

TLS = "Mutual TLS"


def _tls(flag: str, text: str, metavar: str = "PATH") -> Any:
    return typer.Option(flag, help=text, metavar=metavar, rich_help_panel=TLS)


def _seconds(text: str, *flags: str) -> Any:
    return typer.Option(*flags, help=text, metavar="SECONDS", callback=validators.seconds)


Admin = Annotated[
    str,
    typer.Option(help="Envoy's admin address: ip:port, or the path of a socket.", callback=validators.address_or_path),
]


def diagram_command() -> None:
    """Print the state machine as a Mermaid diagram.

    Example: zenvoy diagram > machine.mmd
    """
    from reconciler.core.machine import diagram

    output.document(diagram())


def bootstrap_command(
    reconciler: Annotated[
        str, typer.Option(help="The reconciler's address: host:port, or unix:path.", metavar="HOST:PORT")
    ] = "127.0.0.1:18000",
    node: Annotated[
        str, typer.Option(help="Envoy's node id; each Envoy needs a different one.", callback=validators.identifier)
    ] = "envoy",
    admin: Admin = "127.0.0.1:9901",
    stats_address: Annotated[
        str | None,
        typer.Option(
            help="Serve this Envoy's statistics and readiness at this address, without its other admin endpoints, and "
            "report the address to the reconciler, which reads the statistics there.",
            metavar="IP:PORT",
            callback=validators.pod_address,
        ),
    ] = None,
    mode: Annotated[
        Literal["delta", "sotw"],
        typer.Option(help="Variant of xDS: delta (changes only), or sotw (state of the world)."),
    ] = "delta",
    output_format: Annotated[Literal["yaml", "json"], typer.Option("-o", "--output", help="Output format.")] = "yaml",
    directory: Annotated[
        Path | None,
        typer.Option(
            help="Write envoy.yaml and the files that it refers to into this directory instead of printing it.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    open_files: Annotated[
        str,
        typer.Option(
            help="Limit on open files of Envoy (`ulimit -n`), which bounds its connections: a number, or the soft or "
            "hard limit of this process. Envoy aborts if its real limit is lower.",
            metavar="NUMBER|soft|hard",
            callback=validators.open_files,
        ),
    ] = "soft",
    tls_cert: Annotated[str | None, _tls("--tls-cert", "Envoy's certificate (PEM).")] = None,
    tls_key: Annotated[str | None, _tls("--tls-key", "The private key of the certificate.")] = None,
    tls_ca: Annotated[str | None, _tls("--tls-ca", "Authorities of the reconciler's certificate.")] = None,
    tls_server_name: Annotated[
        str | None,
        _tls(
            "--tls-server-name", "DNS name in the reconciler's certificate; default: the host of --reconciler.", "NAME"
        ),
    ] = None,
) -> None:
    """Generate a bootstrap for an Envoy that connects to a reconciler.

    Envoy reads certificates again when they are replaced, as Kubernetes replaces a mounted Secret.

    Examples:

      zenvoy bootstrap --reconciler 10.0.0.5:18000 --node edge-1 > envoy.yaml && envoy -c envoy.yaml

      zenvoy bootstrap --node edge-1 --stats-address 10.0.0.7:9902 --directory /etc/envoy
    """
    from reconciler.app import envoy_bootstrap
    from reconciler.local.open_files import limit

    try:
        join = envoy_bootstrap.make_join(
            reconciler,
            node,
            admin,
            mode=mode,
            stats=stats_address,
            certificates=(tls_cert, tls_key, tls_ca),
            server_name=tls_server_name,
            open_files=limit(open_files),
            directory=directory,
        )
        if directory is None:
            output.document(envoy_bootstrap.text(join, as_json_text=output_format == "json"))
        else:
            for path in envoy_bootstrap.write(join, directory):
                output.echo(f"wrote {path}")
    except (ValueError, OSError) as error:
        output.fail(str(error), ExitCode.USAGE)


def drain_envoy_command(
    admin: Admin = "127.0.0.1:9901",
    limit: Annotated[float, _seconds("Longest drain, in seconds.", "--for")] = 60.0,
    settle: Annotated[
        float, _seconds("Seconds until load balancers stop sending new clients to an Envoy that is not ready.")
    ] = 5.0,
    quiet: Annotated[float, _seconds("Seconds without traffic after which idle clients are disconnected.")] = 10.0,
) -> None:
    """Drain an Envoy before it stops: requests in flight finish, and new clients go to other Envoys.

    The command returns when no client is connected, when all clients have been idle for --quiet, or after --for.

    Example: zenvoy drain-envoy --admin 127.0.0.1:9901 --for 60

    Exit codes: 0 drained; 1 requests were still in flight after --for, or Envoy does not answer.
    """
    from reconciler.envoy import drain

    try:
        if not drain.drain(admin, limit, settle, quiet, output.echo):
            raise typer.Exit(ExitCode.FAILED)
    except drain.EnvoyUnreachable as error:
        output.fail(str(error))


def _node(text: str) -> str:
    from reconciler.core.access import envoy

    try:
        return envoy(text).node
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _directory(path: Path) -> Path:
    if not path.is_dir():
        raise typer.BadParameter(f"{path} is not a directory; create it with mkdir -p")
    return path


def certificate(
    node: Annotated[
        str,
        typer.Argument(
            help="Node id of the Envoy, which is also the id of its holder.", metavar="NODE", callback=_node
        ),
    ],
    directory: Annotated[
        Path,
        typer.Option(help="Existing directory for tls.crt, tls.key and ca.crt.", metavar="PATH", callback=_directory),
    ] = Path("."),
    days: Annotated[int, typer.Option(help="Days until the certificate expires.", min=1, max=90)] = 90,
    ca_secret: Annotated[
        str,
        typer.Option(help="Secret that contains the certificate authority.", metavar="NAME", callback=validators.name),
    ] = "zenvoy-self-issued-ca",
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    system: System = SYSTEM_NAMESPACE,
) -> None:
    """Issue a certificate for an external Envoy and its holder.

    You need the permission to read the Secret of the authority. Repeat the command before the certificate expires;
    Envoy and the holder use the new files without a restart. ca.crt also contains the authorities that sign next.

    Examples:

      zenvoy certificate edge-1 --directory /etc/zenvoy/tls

      zenvoy bootstrap --node edge-1 --tls-cert /etc/zenvoy/tls/tls.crt …
    """
    from reconciler.cli.commands import cluster
    from reconciler.cluster_client import envoy_certificate

    selection = ContextOptions(None, False, context, kubeconfig, system)
    material = cluster.run(selection, lambda one: envoy_certificate.issue(one, ca_secret, node, days))
    try:
        written = envoy_certificate.write(material, directory)
    except OSError as error:
        output.fail(f"cannot write {error.filename}: {error.strerror}; choose another --directory")
    for path in written:
        output.echo(f"wrote {path}")
