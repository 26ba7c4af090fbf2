"""`zenvoy diagram` and `zenvoy bootstrap`: what can be printed without anything running."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

import typer

from reconciler.cli.exits import Exit


class Mode(StrEnum):
    """How Envoy asks: changes only, or everything each time."""

    delta = "delta"
    sotw = "sotw"


class Output(StrEnum):
    """How a bootstrap is written."""

    yaml = "yaml"
    json = "json"


def diagram_command() -> None:
    """Print the state machine as a Mermaid diagram, drawn from its table.

    Example: zenvoy diagram > machine.mmd
    """
    from reconciler.core.diagram import diagram

    typer.echo(diagram())


def bootstrap_command(
    reconciler: Annotated[
        str, typer.Option(help="Where the reconciler is: host:port, or unix:path.", metavar="HOST:PORT")
    ] = "127.0.0.1:18000",
    node: Annotated[str, typer.Option(help="Envoy's node id; every Envoy needs its own.")] = "envoy",
    admin: Annotated[
        str, typer.Option(help="Envoy's admin address: ip:port, or the path of a socket.")
    ] = "127.0.0.1:9901",
    mode: Annotated[Mode, typer.Option(help="How Envoy asks: only for changes, or for everything.")] = Mode.delta,
    output: Annotated[Output, typer.Option("-o", "--output", help="How it is written.")] = Output.yaml,
) -> None:
    """Print an Envoy bootstrap for joining a reconciler.

    Example: zenvoy bootstrap --reconciler 10.0.0.5:18000 --node edge-1 > envoy.yaml && envoy -c envoy.yaml
    """
    from reconciler.app import bootstrap

    ask: Literal["delta", "sotw"] = "sotw" if mode is Mode.sotw else "delta"
    try:
        typer.echo(bootstrap.text(reconciler, node, admin, ask, as_json_text=output is Output.json))
    except ValueError as error:
        typer.echo(f"zenvoy: {error}", err=True)
        raise typer.Exit(Exit.USAGE) from None
