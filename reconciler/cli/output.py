"""Output of commands: data, lines and tables; errors, with their exit codes.

Rule: text for people is written by `echo`, `error`, `columns` or `cell`. Names, messages and output of programs come
from objects, files, and other processes. They must not control the terminal or imitate other output.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from reconciler.cli.options import OutputFormat
from reconciler.core.text import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

WIDE = 200
"""Width of a table that is not written to a terminal, in characters: enough that nothing is cut."""


class ExitCode(IntEnum):
    """Exit codes of `zenvoy`, which scripts may rely on; 0 is success."""

    FAILED = 1
    """The result did not occur, `up` could not start, the cluster refused a request, or `doctor` found a problem."""
    USAGE = 2
    """A usage error, or an invalid services file."""
    NOT_RUNNING = 3
    """zenvoy is not running with this state directory, or no cluster with zenvoy is reachable."""
    NO_SUCH_SERVICE = 4
    """The service does not exist."""


def data(answer: Any, output_format: OutputFormat, of_many: bool = False) -> None:
    """Write JSON or YAML, which escape control characters; `of_many` means that more documents follow."""
    if output_format == "json":
        typer.echo(json.dumps(answer, indent=2))
        return
    import yaml

    text = yaml.safe_dump(answer, sort_keys=False, allow_unicode=True, explicit_start=of_many)
    if any(printable(line) != line for line in text.split("\n")):
        text = yaml.safe_dump(answer, sort_keys=False, allow_unicode=False, explicit_start=of_many)
    typer.echo(text, nl=False)


def document(text: str) -> None:
    """Write a document that zenvoy generated, such as a configuration, unchanged."""
    typer.echo(text)


def echo(text: str, err: bool = False) -> None:
    """Write one line for people."""
    typer.echo(printable(text), err=err)


def error(message: str) -> None:
    """Write an error of the program to standard error."""
    echo(f"zenvoy: {message}", err=True)


def fail(message: str, code: ExitCode = ExitCode.FAILED) -> NoReturn:
    """Write an error of the program to standard error, and exit."""
    error(message)
    raise typer.Exit(code)


def cell(text: str, style: str = "") -> Text:
    """Return a table cell that shows markup and emoji codes as text, and has no control characters."""
    from rich.text import Text

    return Text(printable(text), style)


def console() -> Console:
    """Return a rich console that writes to standard output."""
    from rich.console import Console

    found = Console()
    return found if found.is_terminal else Console(width=WIDE)


def columns(rows: Sequence[Sequence[str]], indent: str = "") -> list[str]:
    """Return lines in which each column is as wide as its widest cell."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))] if rows else []
    return [
        (indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip()
        for row in rows
    ]
