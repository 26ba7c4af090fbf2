"""`zenvoy certificate`: join the reconcilers of a cluster with an Envoy of your own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reconciler.cli import values, writing
from reconciler.cli.exits import Exit
from reconciler.cli.options import SYSTEM_NAMESPACE, Context, Kubeconfig, System
from reconciler.cli.which import Typed


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
        str, typer.Option(help="Secret of the authority.", metavar="NAME", callback=values.name)
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
    from reconciler.cli import cluster
    from reconciler.cluster_client import envoy_certificate

    typed = Typed(None, False, context, kubeconfig, system)
    found = cluster.run(typed, lambda one: envoy_certificate.issue(one, ca_secret, node, days))
    try:
        written = envoy_certificate.write(found, directory)
    except OSError as error:
        writing.echo(f"zenvoy: cannot write {error.filename}: {error.strerror}", err=True)
        raise typer.Exit(Exit.FAILED) from None
    for path in written:
        writing.echo(f"wrote {path}")
