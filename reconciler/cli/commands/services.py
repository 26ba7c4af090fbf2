"""`zenvoy status`, `wake`, `sleep`, `pause`, `resume` and `explain`, on one machine and in a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Protocol

import typer

from reconciler.cli import options, validators
from reconciler.cli.commands import local
from reconciler.cli.context import addresses_cluster
from reconciler.cluster_client.context_options import SYSTEM_NAMESPACE, ContextOptions


class ServiceCommands(Protocol):
    """The commands for services on one machine, and those in a cluster."""

    def command(self, selection: ContextOptions, name: str, verb: str, wait: bool, timeout: float) -> None: ...

    def wait(self, selection: ContextOptions, names: Sequence[str], goal: str, timeout: float) -> None: ...

    def pause(self, selection: ContextOptions, name: str, paused: bool) -> None: ...

    def explain(self, selection: ContextOptions, name: str, output_format: options.OutputFormat) -> None: ...


def _commands(selection: ContextOptions, name: str | None) -> ServiceCommands:
    """Return the commands for the selected zenvoy; `name` is that of a service."""
    if not addresses_cluster(selection, name):
        return local
    from reconciler.cli.commands import cluster

    return cluster


def status(
    name: options.MaybeName = None,
    output_format: options.OutputOption = "table",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show changes until Ctrl-C.")] = False,
    states: Annotated[
        list[str] | None,
        typer.Option(
            "--state",
            help="In a cluster: only services in this state; can be given several times.",
            metavar="STATE",
            callback=validators.states,
        ),
    ] = None,
    problems: Annotated[
        bool, typer.Option("--problems", help="In a cluster: only services that have a problem.")
    ] = False,
    namespace: options.Namespace = None,
    everywhere: options.Everywhere = False,
    context: options.Context = None,
    kubeconfig: options.Kubeconfig = None,
    system: options.System = SYSTEM_NAMESPACE,
    controller: options.Controller = None,
    state_dir: options.StateDirOption = None,
) -> None:
    """Show services: state, age, reason, connections, requests, the next deadline, and the last wake.

    A narrow terminal shows fewer columns; `zenvoy explain` shows everything. In a cluster the table contains what the
    ScaledServices contain; JSON and YAML also contain the reconciler's live figures, if it answers. From 20 services
    on, totals come first.

    Examples:

      zenvoy status --watch

      zenvoy status echo -o json | jq -r .state

      zenvoy status -A --problems

      zenvoy status -A --state Waking --state Draining

      zenvoy status web -n shop --context prod
    """
    selection = ContextOptions(namespace, everywhere, context, kubeconfig, system, controller, state_dir)
    if not addresses_cluster(selection, name):
        if states or problems:
            raise typer.BadParameter("--state and --problems are available in a cluster; use -o json and jq here")
        local.status(selection.state, name, output_format, watch)
        return
    from reconciler.cli.commands import cluster
    from reconciler.cluster_client.status import ServiceFilter

    cluster.status(selection, name, output_format, watch, ServiceFilter(tuple(states or ()), problems))


def wake(
    name: options.Name,
    wait: options.Wait = True,
    timeout: options.Timeout = options.DEFAULT_TIMEOUT,
    namespace: options.Namespace = None,
    context: options.Context = None,
    kubeconfig: options.Kubeconfig = None,
    state_dir: options.StateDirOption = None,
) -> None:
    """Wake a service, as a connection does, and wait until it is ready.

    If it is not awake within --timeout, the exit code is 1, and the reason is printed; the wake continues. With
    --no-wait the command returns at once; connections wait until the service is ready.

    Examples:

      zenvoy wake db && psql -h 127.0.0.1 -p 15432

      zenvoy wake web --no-wait

      zenvoy wake web -n shop --timeout 5m
    """
    selection = ContextOptions(namespace, False, context, kubeconfig, state_dir=state_dir)
    _commands(selection, name).command(selection, name, "wake", wait, options.seconds(timeout))


def sleep(
    name: options.Name,
    wait: options.Wait = True,
    timeout: options.Timeout = options.DEFAULT_TIMEOUT,
    namespace: options.Namespace = None,
    context: options.Context = None,
    kubeconfig: options.Kubeconfig = None,
    state_dir: options.StateDirOption = None,
) -> None:
    """Put a service to sleep now. It drains first.

    Work in flight is never cut: if it does not end within drainTimeout, the service stays awake, and the exit code is
    1. With `idle.by: bytes`, open connections that are silent are closed.

    Examples:

      zenvoy sleep echo

      zenvoy sleep web -n shop --no-wait
    """
    selection = ContextOptions(namespace, False, context, kubeconfig, state_dir=state_dir)
    _commands(selection, name).command(selection, name, "sleep", wait, options.seconds(timeout))


def wait(
    names: options.Names = None,
    goal: options.Goal = options.READY,
    timeout: options.Timeout = options.DEFAULT_TIMEOUT,
    namespace: options.Namespace = None,
    context: options.Context = None,
    kubeconfig: options.Kubeconfig = None,
    state_dir: options.StateDirOption = None,
) -> None:
    """Wait until zenvoy is ready, or until services are in a state.

    A service is ready while it is awake and reachable. Without names, `--for ready` waits until every listener of
    `zenvoy up` accepts connections, also if it is started later, and `--for STATE` waits for all services.

    If that does not happen within --timeout, the exit code is 1, and what is missing is printed.

    Examples:

      zenvoy wait --timeout 30s && curl http://127.0.0.1:10000/

      zenvoy wait web db --for ScaledToZero

      zenvoy wait web -n shop --for ready
    """
    selection = ContextOptions(namespace, False, context, kubeconfig, state_dir=state_dir)
    most, wanted = options.seconds(timeout), names or []
    _commands(selection, wanted[0] if wanted else None).wait(selection, wanted, goal, most)


def pause(
    name: options.Name,
    namespace: options.Namespace = None,
    context: options.Context = None,
    kubeconfig: options.Kubeconfig = None,
    state_dir: options.StateDirOption = None,
) -> None:
    """Keep a service awake until `zenvoy resume`. It still wakes on demand.

    In a cluster this sets `spec.paused` of the ScaledService, or zenvoy.dev/paused on the Service it is derived from.

    Examples:

      zenvoy pause db

      zenvoy pause web -n shop
    """
    selection = ContextOptions(namespace, False, context, kubeconfig, state_dir=state_dir)
    _commands(selection, name).pause(selection, name, True)


def resume(
    name: options.Name,
    namespace: options.Namespace = None,
    context: options.Context = None,
    kubeconfig: options.Kubeconfig = None,
    state_dir: options.StateDirOption = None,
) -> None:
    """Let a service sleep again after `zenvoy pause`.

    Examples:

      zenvoy resume db

      zenvoy resume web -n shop
    """
    selection = ContextOptions(namespace, False, context, kubeconfig, state_dir=state_dir)
    _commands(selection, name).pause(selection, name, False)


def explain(
    name: options.Name,
    output_format: options.OutputOption = "table",
    namespace: options.Namespace = None,
    context: options.Context = None,
    kubeconfig: options.Kubeconfig = None,
    system: options.System = SYSTEM_NAMESPACE,
    controller: options.Controller = None,
    state_dir: options.StateDirOption = None,
) -> None:
    """Explain a service's state: evidence, acknowledgements, next deadline, and recent transitions.

    Examples:

      zenvoy explain echo

      zenvoy explain web -n shop

      zenvoy explain shop/web -o json | jq '.transitions[0]'
    """
    selection = ContextOptions(namespace, False, context, kubeconfig, system, controller, state_dir)
    _commands(selection, name).explain(selection, name, output_format)
