"""The command `zenvoy` against a release."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.cluster.release import PATIENCE_SECONDS, Release
from tests.e2e.harness import until

WITHOUT_CONTROLLER = ("without live figures", "showing the object and its Events only")
"""Notes of the command that the controller did not answer within seconds."""
COMMAND = Path(sys.executable).with_name("zenvoy")


def run(release: Release, *arguments: str) -> tuple[int, str]:
    """Return the exit code and the output."""
    settings = {**os.environ, **release.node.settings, "COLUMNS": "200"}

    def answered() -> subprocess.CompletedProcess[str] | None:
        done = subprocess.run([COMMAND, *arguments], env=settings, capture_output=True, text=True, timeout=300)
        return None if any(note in done.stderr for note in WITHOUT_CONTROLLER) else done

    done = until("a busy controller answers in time", answered, PATIENCE_SECONDS)
    assert not done.stderr, done
    return done.returncode, done.stdout


def output_of(release: Release, *arguments: str) -> str:
    """Return the output; the exit code must be 0."""
    code, output = run(release, *arguments)
    assert code == 0, output
    return output
