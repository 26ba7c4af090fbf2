"""What `--help` says of a command: its docstring, made for a terminal of any width.

Rules: a paragraph is one line, for the terminal to break; indented lines are examples, and stay what they are.
"""

from __future__ import annotations

import inspect

from rich.markup import escape


def told(text: str | None) -> str:
    """A docstring in the notation of typer's rich mode."""
    told: list[str] = []
    after_example = False
    for paragraph in inspect.cleandoc(text or "").split("\n\n"):
        example = paragraph.startswith("  ")
        # The tag comes first, since typer takes what all lines are indented by off.
        said = f"[bold]{escape(paragraph)}[/bold]" if example else " ".join(paragraph.split())
        told.append(("\n" if example and after_example else "\n\n" if told else "") + said)
        after_example = example
    return "".join(told)
