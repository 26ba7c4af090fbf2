"""What the house promises: documents that equal the code, a lock that tells nothing of the machine, small parts."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.core.diagram import diagram

ROOT = Path(__file__).parent.parent
LONGEST_MODULE, LONGEST_FUNCTION = 450, 40
LOCKS = ("requirements.lock", "requirements-runtime.lock", "requirements-build.lock")
OURS = ("reconciler", "xds", "tproxy")


def modules(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Without its docstring and decorators."""
    has_docstring = ast.get_docstring(function, clean=False) is not None
    start = function.body[0].end_lineno if has_docstring else function.lineno
    assert start and function.end_lineno
    return function.end_lineno - start + 1


def test_the_architecture_shows_the_machine_as_it_is() -> None:
    document = (ROOT / "ARCHITECTURE.md").read_text()
    shown = document.partition("<!-- diagram -->")[2].partition("<!-- /diagram -->")[0].strip()
    assert shown == f"```mermaid\n{diagram()}\n```"


def test_the_architecture_stays_short() -> None:
    assert len((ROOT / "ARCHITECTURE.md").read_text().splitlines()) <= 200


@pytest.mark.parametrize("lock", LOCKS)
def test_the_lock_names_no_index_and_no_machine(lock: str) -> None:
    for line in (ROOT / lock).read_text().splitlines():
        assert not re.search(r"https?:|--(extra-)?index-url|--find-links|--trusted-host|file:|@ ", line), line
        assert not re.search(r"(^|\s)[/~]", line), line


@pytest.mark.parametrize("lock", LOCKS)
def test_everything_in_the_lock_is_pinned_and_hashed(lock: str) -> None:
    pins = pinned(lock)
    assert len(pins) > 5
    for pin in pins:
        assert re.match(r"[a-z0-9._-]+(\[[a-z,]+\])?==\S+", pin), pin
        assert "--hash=sha256:" in pin, pin


def test_the_image_has_what_was_tested() -> None:
    versions = {pin.split()[0] for pin in pinned(LOCKS[0])}
    for lock in LOCKS[1:]:
        assert {pin.split()[0] for pin in pinned(lock)} <= versions


def pinned(lock: str) -> list[str]:
    entries = re.split(r"\n(?=\S)", (ROOT / lock).read_text())
    return [entry for entry in entries if not entry.startswith("#")]


@pytest.mark.parametrize("path", modules(*OURS), ids=named)
def test_a_module_is_small_and_says_what_it_is(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= LONGEST_MODULE
    tree = ast.parse(text)
    assert not tree.body or ast.get_docstring(tree), "no docstring"
    long = {function.name: lines for function in functions(tree) if (lines := lines_of(function)) > LONGEST_FUNCTION}
    assert not long


def test_no_module_is_named_after_nothing() -> None:
    assert not [
        path for path in modules(*OURS) if path.stem in ("utils", "util", "helpers", "manager", "common", "misc")
    ]


def test_tests_neither_patch_nor_skip() -> None:
    forbidden = re.compile(r"mock\.patch|unittest\.mock|\bMagicMock|pytest\.skip|importorskip|mark\.(skip|xfail)")
    found = [
        f"{named(path)}:{number}: {line.strip()}"
        for path in modules("tests")
        if path != Path(__file__)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if forbidden.search(line)
    ]
    assert not found


def test_no_error_is_swallowed_whole() -> None:
    bare = [
        f"{named(path)}:{node.lineno}"
        for path in modules(*OURS)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler) and node.type is None
    ]
    assert not bare


def test_make_lists_every_target() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    listed = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(re.findall(r"^  make ([a-z-]+)", listed.stdout, re.MULTILINE)) == targets
