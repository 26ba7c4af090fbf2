"""Rules about documents, locks, tests and the Makefile."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.core.machine import diagram
from tests.rules.source import EVERYTHING, ROOT, docstrings, modules

ARCHITECTURE_LINES_MAX = 200
NAMED_PATH = re.compile(r"(?<!`)`((?:[\w.-]+/)*[\w-]+\.(?:py|md|toml|lock|binpb)|(?:[\w.-]+/)+(?:[\w-]+)?)`")
"""A path in inline code, perhaps without its first folders or its `.py`."""
PLACEHOLDERS = {"servers/NAME.py"}
LOCKS = ("requirements.lock", "requirements-runtime.lock", "requirements-build.lock")


def pinned(lock: str) -> list[str]:
    entries = re.split(r"\n(?=\S)", (ROOT / lock).read_text())
    return [entry for entry in entries if not entry.startswith("#")]


def documents() -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each document except the changelog, which names old paths."""
    for path in sorted({*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")} - {ROOT / "CHANGELOG.md"}):
        yield path.name, path.read_text()


def test_architecture_diagram_equals_machine() -> None:
    document = (ROOT / "ARCHITECTURE.md").read_text()
    shown = document.partition("<!-- diagram -->")[2].partition("<!-- /diagram -->")[0].strip()
    assert shown == f"```mermaid\n{diagram()}\n```"


def test_architecture_is_short() -> None:
    assert len((ROOT / "ARCHITECTURE.md").read_text().splitlines()) <= ARCHITECTURE_LINES_MAX


def test_paths_in_documents_and_docstrings_exist() -> None:
    paths = [*ROOT.glob("*"), *(path for top in (*EVERYTHING, "docs", "deploy") for path in (ROOT / top).rglob("*"))]
    files = [f"/{path.relative_to(ROOT)}" for path in paths if path.is_file() and path.suffix != ".pyc"]
    folders = {name for file in files for name in file.split("/")[1:-1]}

    def is_missing(named: str) -> bool:
        path = f"/{named.rstrip('/')}"
        is_ours = "/" not in named or named.partition("/")[0] in folders
        return is_ours and not any(file.endswith((path, f"{path}.py")) or f"{path}/" in file for file in files)

    texts = [*documents(), *((module.relative, text) for module in modules(*EVERYTHING) for text in docstrings(module))]
    found = [(where, named) for where, text in texts for named in NAMED_PATH.findall(text)]
    assert len(found) > 200
    assert not [(where, named) for where, named in found if named not in PLACEHOLDERS and is_missing(named)]


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_names_no_index_and_no_path(lock: str) -> None:
    for line in (ROOT / lock).read_text().splitlines():
        assert not re.search(r"https?:|--(extra-)?index-url|--find-links|--trusted-host|file:|@ ", line), line
        assert not re.search(r"(^|\s)[/~]", line), line


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_entries_are_pinned_and_hashed(lock: str) -> None:
    pins = pinned(lock)
    assert len(pins) > 5
    for pin in pins:
        assert re.match(r"[a-z0-9._-]+(\[[a-z,]+\])?==\S+", pin), pin
        assert "--hash=sha256:" in pin, pin


def test_lock_of_image_has_the_tested_versions() -> None:
    versions = {pin.split()[0] for pin in pinned(LOCKS[0])}
    for lock in LOCKS[1:]:
        assert {pin.split()[0] for pin in pinned(lock)} <= versions


def test_tests_neither_patch_nor_skip() -> None:
    forbidden = re.compile(r"mock\.patch|unittest\.mock|\bMagicMock|pytest\.skip|importorskip|mark\.(skip|xfail)")
    found = [
        f"{module.relative}:{number}: {line.strip()}"
        for module in modules("tests")
        if module.path != Path(__file__)
        for number, line in enumerate(module.path.read_text().splitlines(), 1)
        if forbidden.search(line)
    ]
    assert not found


def test_make_lists_every_target() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    listed = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(re.findall(r"^  make ([a-z-]+)", listed.stdout, re.MULTILINE)) == targets
