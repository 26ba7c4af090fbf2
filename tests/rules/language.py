"""The rule about language: documents, manifests, dashboards, and scripts use plain technical English."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from tests.rules.source import ROOT

PHRASES = {
    re.compile(pattern, re.IGNORECASE): instead
    for pattern, instead in tomllib.loads(Path(__file__).with_name("phrases.toml").read_text()).items()
}
INLINE_CODE = re.compile(r"(?<!`)`[^`\n]+`(?!`)")
TEXTS = (
    *("*.md", "docs/**/*.md", "tests/**/*.md", "grafana/**/*.md", "deploy/**/*.md"),
    *("deploy/**/*.yaml", "deploy/**/*.txt", "deploy/**/*.tpl", "deploy/Dockerfile"),
    *("Makefile", ".ci/run", "scripts/install-yaml", "scripts/lock", "scripts/setup", "scripts/system-packages"),
    *("examples/**/*.yaml", "examples/**/*.py", "examples/**/*.sh", "grafana/*.py", "grafana/dashboards/*.json"),
)
"""The files that the rule covers, as patterns below the project's folder."""


def old_phrases() -> list[str]:
    """Return the file, the phrase and its replacement for each use of a phrase that is not plain English."""
    return [violation for path in texts() for violation in violations(path.name, path.read_text())]


def texts() -> list[Path]:
    """Return the files that the rule covers."""
    return sorted({path for pattern in TEXTS for path in ROOT.glob(pattern)})


def violations(name: str, text: str) -> Iterator[str]:
    """Yield the uses of old phrases in a text, also across a line break. Inline code may name old things."""
    words = " ".join(INLINE_CODE.sub("", text).split())
    for pattern, instead in PHRASES.items():
        for found in pattern.finditer(words):
            yield f"{name}: {found[0]} → {instead}"
