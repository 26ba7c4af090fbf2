"""What `zenvoy doctor` found, for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import typer

from reconciler.cli import writing
from reconciler.cli.exits import Exit
from reconciler.cli.options import Output
from reconciler.core.wording import counted
from reconciler.doctor.finding import Examined, Level, as_data


def write(examined: Sequence[Examined], output: Output) -> None:
    """Ends with `Exit.FAILED` when there is a problem."""
    if output is Output.table:
        for line in lines(examined):
            writing.echo(line)
    else:
        writing.data(as_data(list(examined)), output)
    if any(one.problems for one in examined):
        raise typer.Exit(Exit.FAILED)


def lines(examined: Sequence[Examined]) -> Iterator[str]:
    """A line for each thing that was looked at, then what was found, with what to do about it."""
    yield from writing.columns([(_mark(one), one.check, one.said) for one in examined])
    for one in examined:
        for finding in one.found:
            yield ""
            yield f"{finding.level}: {finding.where}"
            yield f"  what    {finding.what}"
            yield f"  remedy  {finding.remedy}"
    problems = sum(one.problems for one in examined)
    notes = sum(finding.level is Level.NOTE for one in examined for finding in one.found)
    yield ""
    yield f"{_many(problems, 'problem')}, {_many(notes, 'note')}"


def _mark(one: Examined) -> str:
    if one.problems:
        return "bad"
    return "note" if one.found else "ok"


def _many(count: int, of: str) -> str:
    return counted(count, of) if count else f"no {of}s"
