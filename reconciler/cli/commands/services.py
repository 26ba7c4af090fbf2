"""`zenvoy status`, `wake`, `sleep`, `pause`, `resume`, `explain`: for a running `zenvoy up`, or for a cluster.

What only some commands need is imported by them: a person waits for each command to start.
"""

from __future__ import annotations

from typing import Annotated

import typer

from reconciler.cli.commands import local
from reconciler.cli.context import HERE, Typed, meant
from reconciler.cli.options import (
    SYSTEM_NAMESPACE,
    Context,
    Controller,
    Everywhere,
    Kubeconfig,
    MaybeName,
    Name,
    Namespace,
    OutputFormat,
    OutputOption,
    StateDirOption,
    System,
    Timeout,
    Wait,
    seconds,
)

__all__ = ["HERE", "explain", "pause", "resume", "sleep", "status", "wake"]
WAKE_TIMEOUT, SLEEP_TIMEOUT = "3m", "3m"


def status(
    name: MaybeName = None,
    output_format: OutputOption = OutputFormat.table,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on until Ctrl-C.")] = False,
    namespace: Namespace = None,
    everywhere: Everywhere = False,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    system: System = SYSTEM_NAMESPACE,
    controller: Controller = None,
    state_dir: StateDirOption = None,
) -> None:
    """Show services: state, since, why; and held, relayed, requests, next deadline, last wake with its parts.

    A narrow terminal has room for less of it; `zenvoy explain` has all. In a cluster the table comes from the
    ScaledServices alone; JSON and YAML have the controller's live figures too, as far as it answers.

    Examples:

      zenvoy status --watch

      zenvoy status echo -o json | jq -r .state

      zenvoy status -A

      zenvoy status web -n shop --context prod
    """
    typed = Typed(namespace, everywhere, context, kubeconfig, system, controller, state_dir)
    if not meant(typed, name):
        local.status(typed.state, name, output_format, watch)
        return
    from reconciler.cli.commands import cluster

    cluster.status(typed, name, output_format, watch)


def wake(
    name: Name,
    wait: Wait = True,
    timeout: Timeout = WAKE_TIMEOUT,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    state_dir: StateDirOption = None,
) -> None:
    """Wake a service, as if somebody had connected.

    On one machine it does not wait until the service is ready; whoever connects then does.

    Examples:

      zenvoy wake db && psql -h 127.0.0.1 -p 15432

      zenvoy wake web -n shop --timeout 5m
    """
    typed = Typed(namespace, False, context, kubeconfig, state_dir=state_dir)
    if not meant(typed, name):
        local.wake(typed.state, name)
        return
    from reconciler.cli.commands import cluster

    cluster.wake(typed, name, wait, seconds(timeout))


def sleep(
    name: Name,
    wait: Wait = True,
    timeout: Timeout = SLEEP_TIMEOUT,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    state_dir: StateDirOption = None,
) -> None:
    """Put a service to sleep now. It is drained first.

    What is in flight is never cut: then the service stays awake, and the exit code is 1.

    Examples:

      zenvoy sleep echo

      zenvoy sleep web -n shop --no-wait
    """
    typed = Typed(namespace, False, context, kubeconfig, state_dir=state_dir)
    if not meant(typed, name):
        local.sleep(typed.state, name, wait)
        return
    from reconciler.cli.commands import cluster

    cluster.sleep(typed, name, wait, seconds(timeout))


def pause(
    name: Name,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    state_dir: StateDirOption = None,
) -> None:
    """Never put a service to sleep, until `zenvoy resume`. It still wakes.

    In a cluster it is `spec.paused` of the ScaledService, or zenvoy.dev/paused on the Service that it is made of.

    Examples:

      zenvoy pause db

      zenvoy pause web -n shop
    """
    typed = Typed(namespace, False, context, kubeconfig, state_dir=state_dir)
    if not meant(typed, name):
        local.pause(typed.state, name)
        return
    from reconciler.cli.commands import cluster

    cluster.pause(typed, name, paused=True)


def resume(
    name: Name,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    state_dir: StateDirOption = None,
) -> None:
    """Undo `zenvoy pause`.

    Examples:

      zenvoy resume db

      zenvoy resume web -n shop
    """
    typed = Typed(namespace, False, context, kubeconfig, state_dir=state_dir)
    if not meant(typed, name):
        local.resume(typed.state, name)
        return
    from reconciler.cli.commands import cluster

    cluster.pause(typed, name, paused=False)


def explain(
    name: Name,
    output_format: OutputOption = OutputFormat.table,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    system: System = SYSTEM_NAMESPACE,
    controller: Controller = None,
    state_dir: StateDirOption = None,
) -> None:
    """Say why a service is in its state: the evidence, who has acknowledged what, what comes next and what went before.

    Examples:

      zenvoy explain echo

      zenvoy explain web -n shop

      zenvoy explain shop/web -o json | jq '.transitions[0]'
    """
    typed = Typed(namespace, False, context, kubeconfig, system, controller, state_dir)
    if not meant(typed, name):
        local.explain(typed.state, name, output_format)
        return
    from reconciler.cli.commands import cluster

    cluster.explain(typed, name, output_format)
