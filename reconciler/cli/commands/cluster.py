"""Commands against a cluster. Counterpart: `reconciler.cluster_client`, which does what they say.

The client of Kubernetes is imported with it: a person waits for each command to start.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TypeVar

import structlog
import typer

from reconciler.app.logging import printable_values
from reconciler.cli import explanation, output, tables
from reconciler.cli.context import Typed, missing
from reconciler.cli.exit_codes import Exit
from reconciler.cli.options import OutputFormat
from reconciler.cluster_client import commands, errors
from reconciler.cluster_client.cluster import Cluster, Where, reached
from reconciler.cluster_client.commands import Verb
from reconciler.cluster_client.controllers import figures
from reconciler.cluster_client.explain import explain_service
from reconciler.cluster_client.status import look, view, watching, with_figures

TICK_SECONDS = 1.0
"""How often a table that is watched is drawn again though nothing has changed: ages grow."""
_T = TypeVar("_T")


def status(typed: Typed, name: str | None, output_format: OutputFormat, watch: bool) -> None:
    """ScaledServices; with `watch`, until Ctrl-C."""
    if watch:
        with suppress(KeyboardInterrupt):
            run(typed, lambda cluster: _watch(cluster, name, output_format))
        return
    answer = run(typed, lambda cluster: look(cluster, name, output_format is not OutputFormat.table, say))
    if output_format is not OutputFormat.table:
        output.data(answer, output_format)
        return
    found = [answer] if name is not None else answer["services"]
    if not found:
        say(
            f"no ScaledService {_place(typed)}; label a Service zenvoy.dev/enabled=true, or create one; "
            "if you did, `zenvoy doctor` says why nothing came of it"
        )
        return
    output.console().print(tables.cluster_table(found, typed.everywhere, datetime.now(UTC)))


def wake(typed: Typed, name: str, wait: bool, timeout: float) -> None:
    _command(typed, name, Verb.WAKE, wait, timeout)


def sleep(typed: Typed, name: str, wait: bool, timeout: float) -> None:
    _command(typed, name, Verb.SLEEP, wait, timeout)


def _command(typed: Typed, name: str, verb: Verb, wait: bool, timeout: float) -> None:
    """Ends with `Exit.FAILED` when it does not come about."""
    if not wait:
        run(typed, lambda cluster: commands.give(cluster, name, verb))
        output.echo(f"{name} is told to {verb}; see how it gets on by `zenvoy status {name} --watch`")
        return
    outcome = run(typed, lambda cluster: commands.carried_out(cluster, name, verb, timeout, say))
    output.echo(outcome.text)
    if not outcome.done:
        raise typer.Exit(Exit.FAILED)


def pause(typed: Typed, name: str, paused: bool) -> None:
    output.echo(run(typed, lambda cluster: commands.pause(cluster, name, paused)))


def explain(typed: Typed, name: str, output_format: OutputFormat) -> None:
    explanation.write(run(typed, lambda cluster: explain_service(cluster, name, say)), output_format)


def run(typed: Typed, act: Callable[[Cluster], Coroutine[Any, Any, _T]]) -> _T:
    """Do it in the cluster that was meant; ends the program on trouble."""
    if why := missing(typed.kubeconfig):
        output.echo(f"zenvoy: {why}", err=True)
        raise typer.Exit(Exit.NOT_RUNNING)
    *before, renderer = structlog.get_config()["processors"]
    processors = before if printable_values in before else [*before, printable_values]
    structlog.configure([*processors, renderer], logger_factory=structlog.PrintLoggerFactory(sys.stderr))

    async def acted() -> _T:
        async with reached(where(typed)) as cluster:
            return await act(cluster)

    try:
        return asyncio.run(acted())
    except errors.Trouble as error:
        output.echo(f"zenvoy: {error}", err=True)
        raise typer.Exit(_exit(error)) from None


def where(typed: Typed) -> Where:
    """What was typed, in the words of the application."""
    return Where(typed.kubeconfig, typed.context, typed.namespace, typed.everywhere, typed.system, typed.controller)


def say(text: str) -> None:
    """Beside the answer: to standard error."""
    output.echo(text, err=True)


def _exit(error: errors.Trouble) -> Exit:
    match error:
        case errors.NotReached():
            return Exit.NOT_RUNNING
        case errors.NoSuch():
            return Exit.NO_SUCH_SERVICE
        case _:
            return Exit.FAILED


def _place(typed: Typed) -> str:
    if typed.everywhere:
        return "in this cluster"
    return f"in namespace {typed.namespace}" if typed.namespace else "in the context's namespace"


async def _watch(cluster: Cluster, name: str | None, output_format: OutputFormat) -> None:
    everywhere = cluster.namespace is None
    if output_format is OutputFormat.table and output.console().is_terminal:
        await _watch_table(cluster, name, everywhere)
        return
    lines = tables.Lines(everywhere)
    async with watching(cluster, name) as changes:
        while True:
            key, item = await changes.get()
            if output_format is OutputFormat.table:
                for line in lines.of(view(item), datetime.now(UTC)) if item else [f"{key} is deleted"]:
                    output.echo(line)
            elif item:
                output.data(await with_figures(figures(cluster), view(item), say), output_format, of_many=True)


async def _watch_table(cluster: Cluster, name: str | None, everywhere: bool) -> None:
    from rich.live import Live

    shown: dict[str, dict[str, Any]] = {}
    with Live(auto_refresh=False) as live:
        async with watching(cluster, name) as changes:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(TICK_SECONDS):
                        key, item = await changes.get()
                        shown[key] = view(item) if item else {}
                present = [shown[key] for key in sorted(shown) if shown[key]]
                if changes.empty():
                    live.update(tables.cluster_table(present, everywhere, datetime.now(UTC)), refresh=True)
