"""Commands for a running `zenvoy up`, over its control socket.

What only some commands need is imported by them: a person waits for each command to start.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import typer

from reconciler.app.state_dir import StateDir
from reconciler.cli import client
from reconciler.cli.exits import Exit
from reconciler.cli.options import Output

WATCH_SECONDS = 0.5


def status(state: StateDir, name: str | None, output: Output, watch: bool) -> None:
    """What services are in; with `watch`, until Ctrl-C."""
    try:
        if watch and output is Output.table:
            _watch_table(state, name)
            return
        for answer in _looks(state, name, watch):
            _write(answer, output, name is not None, of_many=watch)
    except KeyboardInterrupt:
        if not watch:
            raise


def wake(state: StateDir, name: str) -> None:
    typer.echo(_said(_tell(state, name, "wake")))


def sleep(state: StateDir, name: str, wait: bool) -> None:
    """Ends with `Exit.FAILED` when it stays awake."""
    service = _tell(state, name, "sleep")
    while wait and service["state"] == "Draining":
        time.sleep(0.02)  # a person waits for an answer over HTTP; there is nothing to be told by
        service = ask(state, "GET", f"/v1/services/{quote(name, safe='')}")
    typer.echo(_said(service))
    if wait and service["state"] != "ScaledToZero":
        raise typer.Exit(Exit.FAILED)


def pause(state: StateDir, name: str) -> None:
    _tell(state, name, "pause")
    typer.echo(f"{name} is paused: it is not put to sleep")


def resume(state: StateDir, name: str) -> None:
    """Ends with `Exit.FAILED` when the services file pauses it."""
    service = _tell(state, name, "resume")
    if service["paused"]:
        typer.echo(f"{name} is paused in the services file: take `paused: true` out there", err=True)
        raise typer.Exit(Exit.FAILED)
    typer.echo(f"{name} may sleep again")


def explain(state: StateDir, name: str, output: Output) -> None:
    from reconciler.cli import explaining

    explaining.write(ask(state, "GET", f"/v1/services/{quote(name, safe='')}/explain"), output)


def world(state: StateDir) -> dict[str, Any] | None:
    """What the running one says of itself; None when none runs."""
    try:
        answer: dict[str, Any] = client.ask(state.control, "GET", "/v1/world")
    except client.NotRunning:
        return None
    return answer


def ask(state: StateDir, method: str, path: str) -> dict[str, Any]:
    """Ends the program when nobody answers, or when there is no such service."""
    try:
        answer: dict[str, Any] = client.ask(state.control, method, path)
    except client.NotRunning as error:
        typer.echo(f"zenvoy: {error}; for one in a cluster, give -n NAMESPACE or --context NAME", err=True)
        raise typer.Exit(Exit.NOT_RUNNING) from None
    except client.Rejected as error:
        typer.echo(f"zenvoy: {error}", err=True)
        raise typer.Exit(Exit.NO_SUCH_SERVICE) from None
    return answer


def _said(service: dict[str, Any]) -> str:
    return f"{service['name']} is {service['state']}: {service['stalled'] or service['reason']}"


def _tell(state: StateDir, name: str, command: str) -> dict[str, Any]:
    return ask(state, "POST", f"/v1/services/{quote(name, safe='')}/{command}")


def _look(state: StateDir, name: str | None) -> dict[str, Any]:
    return ask(state, "GET", "/v1/services" + ("" if name is None else f"/{quote(name, safe='')}"))


def _looks(state: StateDir, name: str | None, watch: bool) -> Iterator[dict[str, Any]]:
    yield _look(state, name)
    while watch:
        time.sleep(WATCH_SECONDS)  # between two looks
        yield _look(state, name)


def _write(answer: dict[str, Any], output: Output, one: bool, of_many: bool) -> None:
    from reconciler.cli import writing

    if output is not Output.table:
        writing.data(answer, output, of_many)
        return
    from reconciler.cli import render

    wide = writing.console()
    wide.print(render.table([answer] if one else answer["services"], width=wide.width))
    for complaint in [] if one else render.complaints(answer):
        wide.print(complaint, style="red", markup=False)


def _watch_table(state: StateDir, name: str | None) -> None:
    """Drawn anew again and again; where nobody looks, a line for each change."""
    from rich.live import Live

    from reconciler.cli import render, writing

    looks = (answer["services"] if name is None else [answer] for answer in _looks(state, name, watch=True))
    console = writing.console()
    if not console.is_terminal:
        said: dict[str, str] = {}
        for services in looks:
            for service in services:
                if said.get(service["name"]) != (line := render.line(service)):
                    said[service["name"]] = line
                    typer.echo(line)
        return
    with Live(console=console, auto_refresh=False) as live:
        for services in looks:
            live.update(render.table(services, width=console.width), refresh=True)
