"""Help texts: the one of the program, and those of commands, which are made from their docstrings.

A paragraph is written as one line, which the terminal wraps. Indented lines are examples and are kept as they are.
"""

from __future__ import annotations

import inspect

from rich.markup import escape

PROGRAM_HELP = """Scale services behind Envoy to zero, and wake them on the first connection without losing it.

On one machine:

  zenvoy check services.yaml

  zenvoy up services.yaml

  zenvoy status --watch

In a cluster:

  zenvoy status -A

  zenvoy explain web -n shop

Exit codes: 0 success; 1 failure; 2 usage error or invalid file; 3 zenvoy is not running or not reachable; 4 unknown
service.
"""


def render_help(docstring: str | None) -> str:
    """Return a docstring as markup for typer's rich mode."""
    rendered: list[str] = []
    after_example = False
    for paragraph in inspect.cleandoc(docstring or "").split("\n\n"):
        is_example = paragraph.startswith("  ")
        # The tag precedes the indentation because typer removes the indentation that all lines share.
        text = f"[bold]{escape(paragraph)}[/bold]" if is_example else " ".join(paragraph.split())
        rendered.append(("\n" if is_example and after_example else "\n\n" if rendered else "") + text)
        after_example = is_example
    return "".join(rendered)
