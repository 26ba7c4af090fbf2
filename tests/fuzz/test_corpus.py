"""Each input of the corpus, and a short run of libFuzzer over every target."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import CORPUS, FINDINGS, TARGET_NAMES
from tests.fuzz.__main__ import MAX_INPUT_BYTES, libfuzzer
from tests.fuzz.targets import TARGETS

RUNS, SECONDS = 3000, 5
"""Where a short run ends, whichever comes first."""
INPUTS = sorted(path for target in TARGET_NAMES for path in (CORPUS / target).iterdir())


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_target_corpus_input_is_survived(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


@pytest.mark.parametrize("name", TARGET_NAMES)
def test_target_short_run_finds_nothing(name: str, tmp_path: Path) -> None:
    limits = [f"-runs={RUNS}", f"-max_total_time={SECONDS}", "-seed=1", f"-max_len={MAX_INPUT_BYTES}"]
    failed = libfuzzer(name, *limits, str(tmp_path), str(CORPUS / name))
    assert failed == 0, f"a target fails on an input in {FINDINGS / name}"


def test_corpus_has_a_folder_for_each_target() -> None:
    assert set(TARGET_NAMES) == set(TARGETS)
