"""The text of `--help`."""

from __future__ import annotations

import pytest

from reconciler.cli.main import render_help


@pytest.mark.parametrize(
    ("docstring", "said"),
    [
        (None, ""),
        ("Do it.", "Do it."),
        ("Do it, in\n    two lines.", "Do it, in two lines."),
        ("Do it.\n\n    Then\n    more.\n    ", "Do it.\n\nThen more."),
        (
            "Do it.\n\n    Examples:\n\n      zenvoy do 'a[0]'\n\n      zenvoy do b\n\n    And an end.\n    ",
            "Do it.\n\nExamples:\n\n[bold]  zenvoy do 'a[0]'[/bold]\n[bold]  zenvoy do b[/bold]\n\nAnd an end.",
        ),
    ],
)
def test_help_joins_paragraphs_and_keeps_examples(docstring: str | None, said: str) -> None:
    assert render_help(docstring) == said
