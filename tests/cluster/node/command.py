"""The command `zenvoy` against a release."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.cluster.release import Release

COMMAND = Path(sys.executable).with_name("zenvoy")


def run(release: Release, *arguments: str) -> tuple[int, str]:
    """Return the exit code and the output."""
    settings = {**os.environ, **release.node.settings, "COLUMNS": "200"}
    done = subprocess.run([COMMAND, *arguments], env=settings, capture_output=True, text=True, timeout=60)
    assert not done.stderr, done
    return done.returncode, done.stdout


def output_of(release: Release, *arguments: str) -> str:
    """Return the output; the exit code must be 0."""
    code, output = run(release, *arguments)
    assert code == 0, output
    return output
