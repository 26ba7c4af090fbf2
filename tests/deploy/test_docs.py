"""The documentation explains every reason, and its links are valid."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from reconciler.core.reasons import UNKNOWN_REASONS, Reason
from reconciler.kubernetes.status import conditions
from tests.deploy.containers import APPS, unknown_options

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
PAGES = sorted([*ROOT.glob("docs/**/*.md"), *ROOT.glob("*.md"), *ROOT.glob("deploy/**/*.md")])


def test_troubleshooting_explains_every_reason() -> None:
    explained_elsewhere = {*UNKNOWN_REASONS, Reason.OTHER}
    reasons = {*Reason} - explained_elsewhere | {conditions.TARGET_UNAVAILABLE, conditions.NOT_SEEN_YET}
    assert len(reasons) > 60
    for reason in sorted(reasons):
        assert re.search(rf"^### {reason}$|`{reason}`", PAGE, re.MULTILINE), f"docs/troubleshooting.md: {reason}"


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub creates for headings."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_links_have_an_existing_target(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http:", "https:", "mailto:")):
            continue
        file, _, anchor = target.partition("#")
        to = (page.parent / file).resolve() if file else page
        assert to.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(to.read_text()), f"{page.name}: {target}"


def documented_commands(page: Path) -> Iterator[list[str]]:
    """Yield the zenvoy commands in a page, without what follows them in a pipeline or as a comment."""
    text = page.read_text().replace("\\\n", " ")
    fenced = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
    blocks = [block for language, block in fenced.findall(text) if language in ("", "sh")]
    inline = re.findall(r"`([^`\n]+)`", fenced.sub("", text))
    for line in (*"".join(blocks).splitlines(), *inline):
        command = re.split(r"\s+#|[;|&>]", line)[0].split()
        if len(command) > 1 and command[0] in APPS and not command[1].isupper():
            yield command


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_documented_commands_and_options_exist(page: Path) -> None:
    for command in documented_commands(page):
        options = [] if command[1].startswith("-") else unknown_options(command)
        assert not options, f"{page.name}: {' '.join(command)}"


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_documented_chart_values_exist(page: Path) -> None:
    for key in re.findall(r"--set(?:-json)? ?\n? *'?([a-zA-Z.\[\]0-9]+)=", page.read_text()):
        found = yaml.safe_load((ROOT / "deploy" / "chart" / "values.yaml").read_text())
        for part in re.split(r"\[\d+\]", key)[0].split("."):
            if found == {}:  # labels and the like have any keys
                break
            assert part in found, f"{page.name}: {key}"
            found = found[part]


def test_documented_commands_are_found() -> None:
    found = {command[1] for page in PAGES for command in documented_commands(page)}
    assert found >= {"up", "check", "status", "explain", "doctor", "certificate", "bootstrap", "uninstall"}
