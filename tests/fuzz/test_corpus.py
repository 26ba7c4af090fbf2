"""Each input of the corpus, and a short run of libFuzzer over every target."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz import CORPUS, FINDINGS, TARGET_NAMES
from tests.fuzz.__main__ import ENGINE, MAX_INPUT_BYTES, PROJECT, engine_arguments
from tests.fuzz.targets import TARGETS

RUNS, SECONDS = 3000, 5
"""Where a short run ends, whichever comes first."""
INPUTS = sorted(path for target in TARGET_NAMES for path in (CORPUS / target).iterdir())


@pytest.fixture(scope="module")
def engine() -> Iterator[subprocess.Popen[str]]:
    """Start one engine for all targets."""
    pipe = subprocess.PIPE
    with subprocess.Popen(ENGINE, cwd=PROJECT, stdin=pipe, stdout=pipe, text=True) as process:
        yield process


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_target_corpus_input_is_survived(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


@pytest.mark.parametrize("name", TARGET_NAMES)
def test_target_short_run_finds_nothing(engine: subprocess.Popen[str], name: str, tmp_path: Path) -> None:
    assert engine.stdin
    assert engine.stdout
    limits = [f"-runs={RUNS}", f"-max_total_time={SECONDS}", "-seed=1", f"-max_len={MAX_INPUT_BYTES}"]
    words = engine_arguments(name, *limits, str(tmp_path), str(CORPUS / name))
    print(shlex.join(words), file=engine.stdin, flush=True)
    assert engine.stdout.readline() == "0\n", f"a target fails on an input in {FINDINGS / name}"


def test_corpus_has_a_folder_for_each_target() -> None:
    assert set(TARGET_NAMES) == set(TARGETS)
