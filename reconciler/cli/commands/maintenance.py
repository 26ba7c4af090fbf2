"""`zenvoy doctor` and `zenvoy uninstall`.

What only some commands need is imported by them: a person waits for each command to start.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from reconciler.cli import output, validators
from reconciler.cli.context import Typed, meant
from reconciler.cli.exit_codes import Exit
from reconciler.cli.options import (
    SYSTEM_NAMESPACE,
    Context,
    Controller,
    Everywhere,
    Kubeconfig,
    Namespace,
    OutputFormat,
    OutputOption,
    StateDirOption,
    System,
)
from reconciler.core.text import join_words, pluralize
from reconciler.doctor.findings import Examined, Level, as_data


def doctor(
    file: Annotated[
        Path | None,
        typer.Argument(help="On one machine: the services file to look at too.", metavar="[FILE]", exists=True),
    ] = None,
    output_format: OutputOption = OutputFormat.table,
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
    typed = Typed(namespace, everywhere, context, kubeconfig, system, controller, state_dir)
    if file is None and meant(typed):
        from reconciler.cli.commands import cluster
        from reconciler.doctor import cluster_checks

        _write_findings(cluster.run(typed, cluster_checks.check_cluster), output_format)
        return
    from reconciler.cli.commands import local
    from reconciler.doctor import local_checks

    _write_findings(local_checks.check_machine(local.world(typed.state), file), output_format)


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
            callback=validators.namespaces,
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
    from reconciler.cli.commands import cluster
    from reconciler.cluster_client import uninstall as leaving

    typed = Typed(None, namespace is None, context, kubeconfig, system)
    items = cluster.run(typed, lambda one: leaving.found(one, namespace or ()))
    if not items:
        output.echo("there is no ScaledService: nothing has to be restored")
        return
    asleep = sum(item.status.state == "ScaledToZero" for item in items)
    left = "1 ScaledService is" if len(items) == 1 else f"{len(items)} ScaledServices are"
    restored = "those that are get their replicas back" if asleep else "nothing has to be restored"
    output.echo(f"{left} left, {asleep} of them asleep: {restored}", err=True)
    if not yes and not typer.confirm("Go on?"):
        raise typer.Exit(Exit.FAILED)
    outcomes = cluster.run(
        typed, lambda one: leaving.left(one, namespace or (), lambda done: output.echo(f"{done.name}: {done.text}"))
    )
    failed = [outcome for outcome in outcomes if outcome.failed]
    if failed:
        again = "run the command again" if any(outcome.retry for outcome in failed) else "each says what to do"
        names = join_words([outcome.name for outcome in failed], "and")
        output.echo(
            f"{len(failed)} of {len(outcomes)} ScaledServices could not be restored; {again}: {names}", err=True
        )
    if any(outcome.retry or not best_effort for outcome in failed):
        raise typer.Exit(Exit.FAILED)


def _write_findings(examined: Sequence[Examined], output_format: OutputFormat) -> None:
    """Ends with `Exit.FAILED` when there is a problem."""
    if output_format is OutputFormat.table:
        for line in _finding_lines(examined):
            output.echo(line)
    else:
        output.data(as_data(list(examined)), output_format)
    if any(one.problems for one in examined):
        raise typer.Exit(Exit.FAILED)


def _finding_lines(examined: Sequence[Examined]) -> Iterator[str]:
    """A line for each thing that was looked at, then what was found, with what to do about it."""
    yield from output.columns([(_mark(one), one.check, one.said) for one in examined])
    for one in examined:
        for finding in one.found:
            yield ""
            yield f"{finding.level}: {finding.where}"
            yield f"  what    {finding.what}"
            yield f"  remedy  {finding.remedy}"
    problems = sum(one.problems for one in examined)
    notes = sum(finding.level is Level.NOTE for one in examined for finding in one.found)
    yield ""
    yield f"{_many(problems, 'problem')}, {_many(notes, 'note')}"


def _mark(one: Examined) -> str:
    if one.problems:
        return "bad"
    return "note" if one.found else "ok"


def _many(count: int, of: str) -> str:
    return pluralize(count, of) if count else f"no {of}s"
