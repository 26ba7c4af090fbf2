"""The wheel, installed without a checkout, contains the files that `zenvoy up` reads."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ASKED = f"""
import sys
sys.path.append({sysconfig.get_path("purelib")!r})  # for zenvoy's dependencies
from reconciler.local import bundled_prometheus
print(bundled_prometheus.__file__, *bundled_prometheus.rules())
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Python of a new environment that contains only zenvoy's wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder)
    [wheel] = folder.glob("*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "environment")
    python = folder / "environment/bin/python"
    run(sys.executable, "-m", "uv", "pip", "install", "--quiet", "--offline", "--no-deps", "--python", python, wheel)
    return python


def run(*command: str | Path) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_wheel_contains_the_rules(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "ask.py").write_text(ASKED)

    module, *rules = map(Path, run(installed, "-I", tmp_path / "ask.py").split())

    environment = installed.parents[1]
    assert all(file.is_relative_to(environment) for file in (module, *rules))
    shipped = {file.name: file.read_text() for file in rules}
    assert shipped == {file.name: file.read_text() for file in (ROOT / "deploy/prometheus").glob("*.yaml")}
