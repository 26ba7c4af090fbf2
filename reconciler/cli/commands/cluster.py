"""Commands against a cluster. Counterpart: `reconciler.cluster_client`, which executes them.

This module imports the Kubernetes client, so other modules import it only for a command against a cluster.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TypeVar

import structlog
import typer

from reconciler.app.logging import printable_values
from reconciler.cli import explanation, output, tables
from reconciler.cli.context import kubeconfig_error
from reconciler.cli.options import READY, OutputFormat
from reconciler.cli.output import ExitCode
from reconciler.cluster_client import commands
from reconciler.cluster_client.cluster import (
    ClusterClient,
    ClusterError,
    ClusterUnreachable,
    NoSuchService,
    open_cluster,
)
from reconciler.cluster_client.context_options import ContextOptions
from reconciler.cluster_client.explain import explain_service
from reconciler.cluster_client.status import (
    TOTALS_FROM,
    ServiceFilter,
    service_status,
    totals,
    view,
    watching,
    with_figures,
)
from reconciler.core.record import AWAKE_STATES
from reconciler.ports.operations import Command

REFRESH_SECONDS = 1.0
"""Interval at which a watched table is redrawn even if nothing changed, because it shows ages."""
_T = TypeVar("_T")


def status(
    selection: ContextOptions, name: str | None, output_format: OutputFormat, watch: bool, chosen: ServiceFilter
) -> None:
    """Show ScaledServices; with `watch`, until Ctrl-C."""
    if watch:
        with suppress(KeyboardInterrupt):
            run(selection, lambda cluster: _watch(cluster, name, output_format, chosen))
        return
    live = output_format != "table"
    answer = run(selection, lambda cluster: service_status(cluster, name, live, say))
    everything = [answer] if name is not None else answer["services"]
    found = chosen.apply(everything)
    if output_format != "table":
        output.data(answer if name is not None else {**answer, "services": found}, output_format)
        return
    if not everything:
        say(
            f"no ScaledService {_place(selection)}; label a Service zenvoy.dev/enabled=true, or create a "
            "ScaledService; if you have, run `zenvoy doctor`"
        )
        return
    if len(everything) >= TOTALS_FROM or chosen != ServiceFilter():
        output.echo(totals(everything))
    if not found:
        return
    output.console().print(tables.cluster_table(found, selection.everywhere, datetime.now(UTC)))


def command(selection: ContextOptions, name: str, verb: str, wait: bool, timeout: float) -> None:
    """Wake a service or put it to sleep; with `wait`, exit with `ExitCode.FAILED` if that does not succeed."""
    if not wait:
        run(selection, lambda cluster: commands.write_command(cluster, name, Command(verb)))
        output.echo(f"{name}: {verb} requested; follow it with `zenvoy status {name} --watch`")
        return
    result = run(selection, lambda cluster: commands.run_command(cluster, name, Command(verb), timeout, say))
    output.echo(result.message)
    if not result.succeeded:
        raise typer.Exit(ExitCode.FAILED)


def wait(selection: ContextOptions, names: Sequence[str], goal: str, timeout: float) -> None:
    """Wait for services to be in a state, or to be awake; exit with `ExitCode.FAILED` if they are not in time."""
    if not names:
        output.fail("name the services to wait for, or wait for a `zenvoy up` with --state-dir DIR", ExitCode.USAGE)
    states = AWAKE_STATES if goal == READY else (goal,)
    result = run(selection, lambda cluster: commands.wait_for_states(cluster, names, states, timeout))
    output.echo(result.message, err=not result.succeeded)
    if not result.succeeded:
        raise typer.Exit(ExitCode.FAILED)


def pause(selection: ContextOptions, name: str, paused: bool) -> None:
    """Pause or resume a service."""
    output.echo(run(selection, lambda cluster: commands.set_paused(cluster, name, paused)))


def explain(selection: ContextOptions, name: str, output_format: OutputFormat) -> None:
    """Explain a service's state."""
    explanation.write(run(selection, lambda cluster: explain_service(cluster, name, say)), output_format)


def run(selection: ContextOptions, act: Callable[[ClusterClient], Coroutine[Any, Any, _T]]) -> _T:
    """Return the result of `act` in the selected cluster; exit with an error's code and message."""
    if message := kubeconfig_error(selection.kubeconfig):
        output.fail(message, ExitCode.NOT_RUNNING)
    *before, renderer = structlog.get_config()["processors"]
    processors = before if printable_values in before else [*before, printable_values]
    structlog.configure([*processors, renderer], logger_factory=structlog.PrintLoggerFactory(sys.stderr))

    async def connected() -> _T:
        async with open_cluster(selection) as cluster:
            return await act(cluster)

    try:
        return asyncio.run(connected())
    except ClusterUnreachable as error:
        output.fail(str(error), ExitCode.NOT_RUNNING)
    except NoSuchService as error:
        output.fail(str(error), ExitCode.NO_SUCH_SERVICE)
    except ClusterError as error:
        output.fail(str(error))


def say(text: str) -> None:
    """Write a message to standard error, apart from the answer."""
    output.echo(text, err=True)


def _place(selection: ContextOptions) -> str:
    if selection.everywhere:
        return "in this cluster"
    return f"in namespace {selection.namespace}" if selection.namespace else "in the context's namespace"


async def _watch(cluster: ClusterClient, name: str | None, output_format: OutputFormat, chosen: ServiceFilter) -> None:
    everywhere = cluster.namespace is None
    if output_format == "table" and output.console().is_terminal:
        await _watch_table(cluster, name, everywhere, chosen)
        return
    has_header = False
    async with watching(cluster, name) as changes:
        while True:
            key, item = await changes.get()
            if item and not chosen.apply([view(item)]):
                continue
            if output_format == "table" and item:
                for line in tables.cluster_lines(view(item), everywhere, datetime.now(UTC), header=not has_header):
                    output.echo(line)
                has_header = True
            elif output_format == "table":
                output.echo(f"{key} is deleted")
            elif item:
                shown = await with_figures(cluster, view(item), say)
                output.data(shown, output_format, of_many=True)


async def _watch_table(cluster: ClusterClient, name: str | None, everywhere: bool, chosen: ServiceFilter) -> None:
    from rich.live import Live

    shown: dict[str, dict[str, Any]] = {}
    with Live(auto_refresh=False) as live:
        async with watching(cluster, name) as changes:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(REFRESH_SECONDS):
                        key, item = await changes.get()
                        shown[key] = view(item) if item else {}
                present = chosen.apply(shown[key] for key in sorted(shown) if shown[key])
                if changes.empty():
                    live.update(tables.cluster_table(present, everywhere, datetime.now(UTC)), refresh=True)
