"""Golden files: each invalid services file in `golden/` has its expected problems beside it.

To add a case, add a YAML file there and run with `ZENVOY_GOLDEN=write`; outputs without a file are removed.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reconciler.local.services_file import FileProblem, read

GOLDEN = Path(__file__).parent / "golden"
INPUTS = sorted(path.name for path in GOLDEN.glob("*.yaml"))
WRITE = os.environ.get("ZENVOY_GOLDEN") == "write"


@pytest.mark.parametrize("name", INPUTS)
def test_golden_file_with_mistakes_has_its_problems(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GOLDEN)
    monkeypatch.setenv("PATH", "bin")
    problems = read(Path(name))
    assert isinstance(problems, list)
    assert all(isinstance(problem, FileProblem) for problem in problems)
    answer = "".join(f"{problem}\n" for problem in problems).replace(str(GOLDEN), "$GOLDEN")
    golden = Path(name).with_suffix(".out")
    if WRITE:
        golden.write_text(answer)
    assert answer == golden.read_text()


def test_golden_output_has_its_input() -> None:
    stale = [path for path in GOLDEN.glob("*.out") if f"{path.stem}.yaml" not in INPUTS]
    if WRITE:
        for path in stale:
            path.unlink()
        stale = []
    assert stale == []
