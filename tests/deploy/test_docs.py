"""The documentation explains every reason, and its links are valid."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from reconciler.kubernetes.client import discovery
from reconciler.kubernetes.config.service_config import REASONS
from reconciler.kubernetes.status import conditions
from reconciler.kubernetes.workloads import diagnosis, target_informers, wake_client
from tests.deploy.containers import APPS, unknown_options

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
PAGES = sorted([*ROOT.glob("docs/**/*.md"), *ROOT.glob("*.md"), *ROOT.glob("deploy/**/*.md")])
_WORD = re.compile(r"""(?<!["'])f?["']([A-Z][A-Za-z]{5,}): """)


def reasons_in(*modules: object) -> set[str]:
    """Return the words with which messages in some modules begin."""
    return {word for module in modules for word in _WORD.findall(Path(str(module.__file__)).read_text())}  # type: ignore[attr-defined]


def test_troubleshooting_explains_every_reason() -> None:
    words = reasons_in(wake_client, target_informers, diagnosis, discovery)
    assert len(words) > 12
    named = {
        conditions.TARGET_UNAVAILABLE,
        conditions.NOT_SEEN_YET,
        "CrashLoopBackOff",
        "QuotaExceeded",
        *diagnosis.MOUNTS,
    }
    for reason in sorted(words | named | set(REASONS)):
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
