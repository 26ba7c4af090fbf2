"""`zenvoy doctor` and `zenvoy uninstall`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from reconciler.cli import options, output, validators
from reconciler.cli.context import addresses_cluster
from reconciler.cli.output import ExitCode
from reconciler.cluster_client.context_options import SYSTEM_NAMESPACE, ContextOptions
from reconciler.core.text import join_words, pluralize
from reconciler.doctor.findings import CheckResult, Finding, Severity, as_data

MAX_PLACES = 5
"""Number of places that a group of notes names."""


def doctor(
    file: Annotated[
        Path | None,
        typer.Argument(help="On one machine: the services file to check too.", metavar="[FILE]", exists=True),
    ] = None,
    output_format: options.OutputOption = "table",
    namespace: options.Namespace = None,
    everywhere: options.Everywhere = False,
    context: options.Context = None,
    kubeconfig: options.Kubeconfig = None,
    system: options.System = SYSTEM_NAMESPACE,
    controller: options.Controller = None,
    state_dir: options.StateDirOption = None,
) -> None:
    """Find problems with zenvoy, each with its remedy.

    In a cluster it checks the CustomResourceDefinition, the reconciler's pods and leader, its permissions, connected
    Envoys and holders, samples, certificates, ScaledServices with mistakes, programs that set replicas (HPAs, KEDA,
    Argo CD, Flux), routes and load balancers that lead past the proxy, and NetworkPolicies.

    On one machine it checks Envoy, the services file and its ports, and the connections of a running `zenvoy up`.

    The exit code is 1 if there is a problem. Notes do not change it. In JSON, each finding has a code.

    Examples:

      zenvoy doctor -A

      zenvoy doctor -n shop -o json | jq -r '.findings[] | .code, .remedy'

      zenvoy doctor services.yaml
    """
    selection = ContextOptions(namespace, everywhere, context, kubeconfig, system, controller, state_dir)
    if file is None and addresses_cluster(selection):
        from reconciler.cli.commands import cluster
        from reconciler.doctor import cluster_checks

        _write_results(cluster.run(selection, cluster_checks.check_cluster), output_format)
        return
    from reconciler.cli.commands import local
    from reconciler.doctor import local_checks

    overview = local.ask_if_running(selection.state, "/v1/overview")
    services = local.ask_if_running(selection.state, "/v1/services").get("services", [])
    _write_results(local_checks.check_machine(overview, services, file), output_format)


def uninstall(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    best_effort: Annotated[
        bool,
        typer.Option(
            "--best-effort",
            help="Exit with 0 even if a ScaledService can never be restored, so that an uninstall continues.",
        ),
    ] = False,
    hook_of: Annotated[
        str,
        typer.Option(
            help="For the chart's hook: do nothing if this Service of zenvoy was applied, not installed by helm or "
            "Argo CD, because the hook's Job was then applied too.",
            metavar="SERVICE",
            callback=validators.optional_name,
        ),
    ] = "",
    namespace: Annotated[
        list[str] | None,
        typer.Option(
            "-n",
            "--namespace",
            help="Only this namespace; can be given several times.",
            metavar="NAMESPACE",
            callback=validators.namespaces,
        ),
    ] = None,
    context: options.Context = None,
    kubeconfig: options.Kubeconfig = None,
    system: options.System = SYSTEM_NAMESPACE,
) -> None:
    """Wake all sleeping services and remove finalizers, in preparation for uninstalling zenvoy.

    `helm uninstall` does this itself. The command works without a reconciler; a running reconciler puts nothing to
    sleep for ten minutes afterwards. You can repeat it. Without --namespace it covers all namespaces.

    Examples:

      zenvoy uninstall

      zenvoy uninstall --yes --context staging
    """
    from reconciler.cli.commands import cluster
    from reconciler.cluster_client.uninstall import is_hook, restore_services, services_to_restore

    selection = ContextOptions(None, namespace is None, context, kubeconfig, system)
    if hook_of and not cluster.run(selection, lambda one: is_hook(one, hook_of)):
        output.echo("nothing was done: this Job is a hook of helm, and was applied; render the chart with --no-hooks")
        return
    items = cluster.run(selection, lambda one: services_to_restore(one, namespace or ()))
    if not items:
        output.echo("there is no ScaledService; nothing to restore")
        return
    asleep = sum(item.status.state == "ScaledToZero" for item in items)
    question = f"This restores the replicas of {asleep} and removes the finalizers of all. Continue?"
    output.echo(f"{pluralize(len(items), 'ScaledService')}, {asleep} asleep", err=True)
    if not yes and not typer.confirm(question):
        raise typer.Exit(ExitCode.FAILED)
    outcomes = cluster.run(
        selection,
        lambda one: restore_services(one, namespace or (), lambda done: output.echo(f"{done.name}: {done.text}")),
    )
    failed = [outcome for outcome in outcomes if outcome.failed]
    if failed:
        again = "run the command again" if any(outcome.retry for outcome in failed) else "see the message of each"
        names = join_words([outcome.name for outcome in failed], "and")
        output.echo(f"{len(failed)} of {len(outcomes)} ScaledServices were not restored; {again}: {names}", err=True)
    if any(outcome.retry or not best_effort for outcome in failed):
        raise typer.Exit(ExitCode.FAILED)


def _write_results(results: list[CheckResult], output_format: options.OutputFormat) -> None:
    """Write the results; exit with `ExitCode.FAILED` if there is a problem."""
    if output_format == "table":
        for line in _result_lines(results):
            output.echo(line)
    else:
        output.data(as_data(results), output_format)
    if any(one.problems for one in results):
        raise typer.Exit(ExitCode.FAILED)


def _result_lines(results: Sequence[CheckResult]) -> Iterator[str]:
    """Yield a line for each check, then the problems, then the notes, each with its remedy."""
    marks = ["bad" if one.problems else "note" if one.findings else "ok" for one in results]
    yield from output.columns([(mark, one.check, one.summary) for mark, one in zip(marks, results, strict=True)])
    findings = [finding for one in results for finding in one.findings]
    problems = [finding for finding in findings if finding.severity is Severity.PROBLEM]
    notes: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        if finding.severity is Severity.NOTE:
            notes.setdefault((finding.code, finding.remedy), []).append(finding)
    for alike in [*([problem] for problem in problems), *notes.values()]:
        yield from _finding_lines(alike)
    yield ""
    yield f"{_number(len(problems), 'problem')}, {_number(len(findings) - len(problems), 'note')}"


def _finding_lines(alike: Sequence[Finding]) -> Iterator[str]:
    """Yield the lines of one finding, or of several that have the same code and remedy."""
    first, *others = alike
    yield ""
    yield f"{first.severity}: {first.place}: {first.code}" + (f" (and {len(others)} more)" if others else "")
    yield f"  message  {first.message}"
    yield f"  remedy   {first.remedy}"
    if others:
        named = [finding.place for finding in others[:MAX_PLACES]]
        yield f"  also at  {', '.join(named)}" + (", …; all with -o json" if len(others) > MAX_PLACES else "")


def _number(count: int, thing: str) -> str:
    return pluralize(count, thing) if count else f"no {thing}s"
