"""Standard streams that are closed when the program starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import os, sys
from reconciler.app.encoding import open_missing_streams
open_missing_streams()
print("out")
print("err", file=sys.stderr)
with open(sys.argv[1], "w") as file:
    for number in range(3):
        print(os.readlink(f"/proc/self/fd/{number}"), os.get_inheritable(number), file=file)
"""


def test_streams_closed_at_start_are_opened(tmp_path: Path) -> None:
    found = tmp_path / "found"
    shell = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]
    done = subprocess.run([*shell, sys.executable, "-c", SCRIPT, str(found)], timeout=60, check=False)
    assert done.returncode == 0
    assert found.read_text() == "/dev/null True\n" * 3


def test_streams_open_at_start_are_kept(tmp_path: Path) -> None:
    found = tmp_path / "found"
    command = [sys.executable, "-c", SCRIPT, str(found)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("out\n", "err\n")
    assert "/dev/null" not in found.read_text().partition("\n")[2]
