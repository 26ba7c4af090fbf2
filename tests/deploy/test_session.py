"""The recorded terminal session in the README."""

from __future__ import annotations

import os
import re
from pathlib import Path

from scripts.record_session import IMAGE, render, run_in_terminal

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "TERM": "xterm-256color"}


def test_session_renders_the_colored_output_of_a_terminal() -> None:
    output = run_in_terminal("test -t 1 && printf '\\033[32mgreen\\033[0m\\n'", ENVIRONMENT)
    assert output == "\x1b[32mgreen\x1b[0m\n"
    svg = render([("printf green", output)], "a title")
    assert ">green<" in svg
    assert "a&#160;title" in svg


def test_session_refers_to_nothing_outside_the_image() -> None:
    text = IMAGE.read_text()
    assert not re.findall(r"@font-face|url\((?!#)|href=|<script", text)
    assert "&#160;zenvoy&#160;status" in text


def test_images_are_shown_with_a_description() -> None:
    pages = "".join(page.read_text() for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")))
    shown = set(re.findall(r"!\[[^\]]{20,}\]\((?:docs/|\.\./|\.\./\.\./docs/)?img/([^)]+)\)", pages))
    assert shown == {path.name for path in IMAGE.parent.iterdir()}
