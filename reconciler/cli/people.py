"""`zenvoy status`, `wake`, `sleep`, `pause`, `resume`: looking at, and talking to, a running `zenvoy up`.

What only some commands need is imported by them: a person waits for each command to start.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from reconciler.app.state_dir import StateDir
from reconciler.cli import client
from reconciler.cli.exits import Exit

WATCH_SECONDS = 0.5
WIDE = 200
"""Columns of a table that nobody looks at in a terminal: wide enough that nothing is cut."""


class Output(StrEnum):
    """How a status is written."""

    table = "table"
    json = "json"
    yaml = "yaml"


StateDirOption = Annotated[
    Path, typer.Option("--state-dir", envvar="ZENVOY_STATE_DIR", help="The state directory of the running `zenvoy up`.")
]
Name = Annotated[str, typer.Argument(help="The service.", metavar="NAME")]
HERE = Path(".zenvoy")


def status(
    name: Annotated[str | None, typer.Argument(help="One service; default: all.", metavar="[NAME]")] = None,
    output: Annotated[Output, typer.Option("-o", "--output", help="How it is written.")] = Output.table,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on until Ctrl-C.")] = False,
    state_dir: StateDirOption = HERE,
) -> None:
    """Show services: state, since, why, held, relayed, requests, next deadline, last wake with its parts.

    Examples:

      zenvoy status --watch

      zenvoy status echo -o json | jq -r .state
    """
    try:
        if watch and output is Output.table:
            _watch_table(state_dir, name)
            return
        for answer in _looks(state_dir, name, watch):
            _write(answer, output, name is not None, of_many=watch)
    except KeyboardInterrupt:
        if not watch:
            raise


def wake(name: Name, state_dir: StateDirOption = HERE) -> None:
    """Wake a service, as if somebody had connected.

    Example: zenvoy wake db && psql -h 127.0.0.1 -p 15432
    """
    typer.echo(_said(_tell(state_dir, name, "wake")))


def sleep(
    name: Name,
    wait: Annotated[bool, typer.Option(help="Wait until it sleeps, or until it turns out that it is in use.")] = True,
    state_dir: StateDirOption = HERE,
) -> None:
    """Put a service to sleep now. It is drained first.

    What is in flight is never cut: then the service stays awake, and the exit code is 1.

    Example: zenvoy sleep echo
    """
    service = _tell(state_dir, name, "sleep")
    while wait and service["state"] == "Draining":
        time.sleep(0.02)  # a person waits for an answer over HTTP; there is nothing to be told by
        service = _ask(state_dir, "GET", f"/v1/services/{quote(name, safe='')}")
    typer.echo(_said(service))
    if wait and service["state"] != "ScaledToZero":
        raise typer.Exit(Exit.FAILED)


def pause(name: Name, state_dir: StateDirOption = HERE) -> None:
    """Never put a service to sleep, until `zenvoy resume`. It still wakes.

    Example: zenvoy pause db
    """
    _tell(state_dir, name, "pause")
    typer.echo(f"{name} is paused: it is not put to sleep")


def resume(name: Name, state_dir: StateDirOption = HERE) -> None:
    """Undo `zenvoy pause`.

    Example: zenvoy resume db
    """
    service = _tell(state_dir, name, "resume")
    if service["paused"]:
        typer.echo(f"{name} is paused in the services file: take `paused: true` out there", err=True)
        raise typer.Exit(Exit.FAILED)
    typer.echo(f"{name} may sleep again")


def _said(service: dict[str, Any]) -> str:
    return f"{service['name']} is {service['state']}: {service['stalled'] or service['reason']}"


def _tell(state_dir: Path, name: str, command: str) -> dict[str, Any]:
    return _ask(state_dir, "POST", f"/v1/services/{quote(name, safe='')}/{command}")


def _look(state_dir: Path, name: str | None) -> dict[str, Any]:
    return _ask(state_dir, "GET", "/v1/services" + ("" if name is None else f"/{quote(name, safe='')}"))


def _looks(state_dir: Path, name: str | None, watch: bool) -> Iterator[dict[str, Any]]:
    yield _look(state_dir, name)
    while watch:
        time.sleep(WATCH_SECONDS)  # between two looks
        yield _look(state_dir, name)


def _ask(state_dir: Path, method: str, path: str) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = client.ask(StateDir(state_dir.absolute()).control, method, path)
    except client.NotRunning as error:
        typer.echo(f"zenvoy: {error}", err=True)
        raise typer.Exit(Exit.NOT_RUNNING) from None
    except client.Rejected as error:
        typer.echo(f"zenvoy: {error}", err=True)
        raise typer.Exit(Exit.NO_SUCH_SERVICE) from None
    return answer


def _write(answer: dict[str, Any], output: Output, one: bool, of_many: bool) -> None:
    match output:
        case Output.json:
            typer.echo(json.dumps(answer, indent=2))
        case Output.yaml:
            import yaml

            text = yaml.safe_dump(answer, sort_keys=False, allow_unicode=True, explicit_start=of_many)
            typer.echo(text, nl=False)
        case Output.table:
            from rich.console import Console

            from reconciler.cli import render

            console = Console()
            wide = console if console.is_terminal else Console(width=WIDE)
            wide.print(render.table([answer] if one else answer["services"]))
            for complaint in [] if one else render.complaints(answer):
                wide.print(complaint, style="red", markup=False)


def _watch_table(state_dir: Path, name: str | None) -> None:
    from rich.live import Live

    from reconciler.cli import render

    with Live(auto_refresh=False) as live:
        for answer in _looks(state_dir, name, watch=True):
            live.update(render.table(answer["services"] if name is None else [answer]), refresh=True)
