"""`--version` of each console script."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

DECLARED = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]["version"]


@pytest.mark.parametrize("script", ["zenvoy", "kubectl-zenvoy", "zenvoy-tproxy"])
def test_console_script_version_option_prints_version(script: str) -> None:
    command: list[str | Path] = [Path(sys.executable).parent / script, "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == f"zenvoy {DECLARED}\n"
