"""How answers are written: as data, or on a console that cuts nothing where nobody looks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from reconciler.cli.options import Output

if TYPE_CHECKING:
    from rich.console import Console

WIDE = 200
"""Columns of a table that nobody looks at in a terminal: wide enough that nothing is cut."""


def data(answer: Any, output: Output, of_many: bool = False) -> None:
    """As JSON, or YAML; `of_many`: others like it follow."""
    if output is Output.json:
        typer.echo(json.dumps(answer, indent=2))
        return
    import yaml

    typer.echo(yaml.safe_dump(answer, sort_keys=False, allow_unicode=True, explicit_start=of_many), nl=False)


def console() -> Console:
    """Standard output."""
    from rich.console import Console

    found = Console()
    return found if found.is_terminal else Console(width=WIDE)


def columns(rows: Sequence[Sequence[str]], indent: str = "") -> list[str]:
    """Lines in which each column is as wide as its widest cell."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))] if rows else []
    return [
        (indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip()
        for row in rows
    ]
