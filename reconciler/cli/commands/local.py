"""Commands for a running `zenvoy up`, over its control socket.

What only some commands need is imported by them: a person waits for each command to start.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import typer

from reconciler.cli import control_client, output
from reconciler.cli.exit_codes import Exit
from reconciler.cli.options import OutputFormat
from reconciler.local.state_dir import StateDir

if TYPE_CHECKING:
    from rich.console import Console

WATCH_SECONDS = 0.5


def status(state: StateDir, name: str | None, output_format: OutputFormat, watch: bool) -> None:
    """What services are in; with `watch`, until Ctrl-C."""
    try:
        if watch and output_format is OutputFormat.table:
            _watch_table(state, name)
        elif output_format is OutputFormat.table:
            _write_table(*_seen(state, name))
        else:
            _write_data(state, name, output_format, watch)
    except KeyboardInterrupt:
        if not watch:
            raise


def wake(state: StateDir, name: str) -> None:
    output.echo(_said(_tell(state, name, "wake")))


def sleep(state: StateDir, name: str, wait: bool) -> None:
    """Ends with `Exit.FAILED` when it stays awake."""
    service = _tell(state, name, "sleep")
    while wait and service["state"] == "Draining":
        time.sleep(0.02)  # a person waits for an answer over HTTP; there is nothing to be told by
        service = ask(state, "GET", f"/v1/services/{quote(name, safe='')}")
    output.echo(_said(service))
    if wait and service["state"] != "ScaledToZero":
        raise typer.Exit(Exit.FAILED)


def pause(state: StateDir, name: str) -> None:
    _tell(state, name, "pause")
    output.echo(f"{name} is paused: it is not put to sleep")


def resume(state: StateDir, name: str) -> None:
    """Ends with `Exit.FAILED` when the services file pauses it."""
    service = _tell(state, name, "resume")
    if service["paused"]:
        output.echo(f"{name} is paused in the services file: take `paused: true` out there", err=True)
        raise typer.Exit(Exit.FAILED)
    output.echo(f"{name} may sleep again")


def explain(state: StateDir, name: str, output_format: OutputFormat) -> None:
    from reconciler.cli import explanation

    explanation.write(ask(state, "GET", f"/v1/services/{quote(name, safe='')}/explain"), output_format)


def world(state: StateDir) -> dict[str, Any] | None:
    """What the running one says of itself; None when none runs."""
    try:
        return _asked(state, "GET", "/v1/world")
    except control_client.NotRunning:
        return None


def ask(state: StateDir, method: str, path: str) -> dict[str, Any]:
    """Ends the program when nobody answers, or when there is no such service."""
    try:
        return _asked(state, method, path)
    except control_client.NotRunning as error:
        output.echo(f"zenvoy: {error}; for one in a cluster, give -n NAMESPACE or --context NAME", err=True)
        raise typer.Exit(Exit.NOT_RUNNING) from None
    except control_client.Rejected as error:
        output.echo(f"zenvoy: {error}", err=True)
        raise typer.Exit(Exit.NO_SUCH_SERVICE) from None


def _asked(state: StateDir, method: str, path: str) -> dict[str, Any]:
    """Ends the program when the answer is none."""
    try:
        answer: dict[str, Any] = control_client.ask(state.control, method, path)
    except control_client.Broken as error:
        output.echo(f"zenvoy: {error}", err=True)
        raise typer.Exit(Exit.FAILED) from None
    return answer


def _said(service: dict[str, Any]) -> str:
    return f"{service['name']} is {service['state']}: {service['stalled'] or service['reason']}"


def _tell(state: StateDir, name: str, command: str) -> dict[str, Any]:
    return ask(state, "POST", f"/v1/services/{quote(name, safe='')}/{command}")


def _look(state: StateDir, name: str | None) -> dict[str, Any]:
    return ask(state, "GET", "/v1/services" + ("" if name is None else f"/{quote(name, safe='')}"))


def _seen(state: StateDir, name: str | None) -> tuple[list[dict[str, Any]], list[str]]:
    """Services, and what is wrong beyond them."""
    from reconciler.cli import tables

    answer = _look(state, name)
    beyond = ask(state, "GET", "/v1/world")
    busy = (beyond.get("listens") or {}).get("busy", [])
    if name is None:
        return answer["services"], [*busy, *tables.complaints(answer["envoys"], answer["holders"])]
    envoys = [envoy for envoy in beyond["envoys"] if not envoy.get("away")]
    holders = [holder for holder in beyond["holders"] if holder["connected"]]
    return [answer], [*busy, *tables.complaints(envoys, holders)]


def _write_data(state: StateDir, name: str | None, output_format: OutputFormat, watch: bool) -> None:

    output.data(_look(state, name), output_format, of_many=watch)
    while watch:
        time.sleep(WATCH_SECONDS)  # between two looks
        output.data(_look(state, name), output_format, of_many=watch)


def _write_table(services: list[dict[str, Any]], complaints: list[str]) -> None:
    from reconciler.cli import tables

    wide = output.console()
    wide.print(tables.table(services, width=wide.width))
    for complaint in complaints:
        wide.print(output.cell(complaint, "red"))


def _watch_table(state: StateDir, name: str | None) -> None:
    """Drawn anew again and again; where nobody looks, a line for each change."""
    from reconciler.cli import tables

    console = output.console()
    if console.is_terminal:
        _watch_drawn(state, name, console)
        return
    said: set[str] = set()
    while True:
        services, complaints = _seen(state, name)
        lines = [*map(tables.line, services), *complaints]
        for line in lines:
            if line not in said:
                output.echo(line)
        said = set(lines)
        time.sleep(WATCH_SECONDS)  # between two looks


def _watch_drawn(state: StateDir, name: str | None, console: Console) -> None:
    from rich.console import Group
    from rich.live import Live

    from reconciler.cli import tables

    with Live(console=console, auto_refresh=False) as live:
        while True:
            services, complaints = _seen(state, name)
            red = (output.cell(complaint, "red") for complaint in complaints)
            live.update(Group(tables.table(services, width=console.width), *red), refresh=True)
            time.sleep(WATCH_SECONDS)  # between two looks
