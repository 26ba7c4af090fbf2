"""`zenvoy doctor` and `zenvoy uninstall`.

What only some commands need is imported by them: a person waits for each command to start.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reconciler.cli import values, writing
from reconciler.cli.exits import Exit
from reconciler.cli.options import (
    SYSTEM_NAMESPACE,
    Context,
    Controller,
    Everywhere,
    Kubeconfig,
    Namespace,
    Output,
    OutputOption,
    StateDirOption,
    System,
)
from reconciler.cli.which import Typed, meant
from reconciler.core.wording import listed


def doctor(
    file: Annotated[
        Path | None,
        typer.Argument(help="On one machine: the services file to look at too.", metavar="[FILE]", exists=True),
    ] = None,
    output: OutputOption = Output.table,
    namespace: Namespace = None,
    everywhere: Everywhere = False,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    system: System = SYSTEM_NAMESPACE,
    controller: Controller = None,
    state_dir: StateDirOption = None,
) -> None:
    """Find what keeps zenvoy from working, and say what to do about each.

    In a cluster: the CustomResourceDefinition and its version, the controller's pods and who leads, its rights, the
    Envoys and holders that are connected, whether samples (of Prometheus, or of Envoys) can be believed, ScaledServices
    with mistakes, and who fights over replicas: HPAs, KEDA's ScaledObjects, Argo CD, Flux.

    On one machine: Envoy, the services file and its ports, and what is connected to a running `zenvoy up`.

    The exit code is 1 when there is a problem; notes do not count.

    Examples:

      zenvoy doctor -A

      zenvoy doctor -n shop -o json | jq -r '.findings[].remedy'

      zenvoy doctor services.yaml
    """
    from reconciler.cli import doctoring

    typed = Typed(namespace, everywhere, context, kubeconfig, system, controller, state_dir)
    if file is None and meant(typed):
        from reconciler.cli import cluster
        from reconciler.doctor import checks

        doctoring.write(cluster.run(typed, checks.examined), output)
        return
    from reconciler.cli import local
    from reconciler.doctor import machine

    doctoring.write(machine.examined(local.world(typed.state), file), output)


def uninstall(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    best_effort: Annotated[
        bool,
        typer.Option(
            "--best-effort",
            help="Report a ScaledService that can never be restored, and end with 0: it does not stop an uninstall.",
        ),
    ] = False,
    namespace: Annotated[
        list[str] | None,
        typer.Option(
            "-n",
            "--namespace",
            help="Only in this one; may be repeated.",
            metavar="NAMESPACE",
            callback=values.namespaces,
        ),
    ] = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    system: System = SYSTEM_NAMESPACE,
) -> None:
    """Give everything that sleeps its replicas back, and take zenvoy's finalizers off, so that zenvoy can go.

    `helm uninstall` does it by itself. It works without a controller; one that still runs puts nothing to sleep for the
    next ten minutes. It can be repeated. In all namespaces, unless some are named.

    Examples:

      zenvoy uninstall

      zenvoy uninstall --yes --context staging
    """
    from reconciler.cli import cluster
    from reconciler.cluster_client import uninstall as leaving

    typed = Typed(None, namespace is None, context, kubeconfig, system)
    items = cluster.run(typed, lambda one: leaving.found(one, namespace or ()))
    if not items:
        writing.echo("there is no ScaledService: nothing has to be restored")
        return
    asleep = sum(item.status.state == "ScaledToZero" for item in items)
    left = "1 ScaledService is" if len(items) == 1 else f"{len(items)} ScaledServices are"
    restored = "those that are get their replicas back" if asleep else "nothing has to be restored"
    writing.echo(f"{left} left, {asleep} of them asleep: {restored}", err=True)
    if not yes and not typer.confirm("Go on?"):
        raise typer.Exit(Exit.FAILED)
    outcomes = cluster.run(
        typed, lambda one: leaving.left(one, namespace or (), lambda done: writing.echo(f"{done.name}: {done.text}"))
    )
    failed = [outcome for outcome in outcomes if outcome.failed]
    if failed:
        again = "run the command again" if any(outcome.retry for outcome in failed) else "each says what to do"
        names = listed([outcome.name for outcome in failed], "and")
        writing.echo(
            f"{len(failed)} of {len(outcomes)} ScaledServices could not be restored; {again}: {names}", err=True
        )
    if any(outcome.retry or not best_effort for outcome in failed):
        raise typer.Exit(Exit.FAILED)
