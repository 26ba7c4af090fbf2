"""Limits on open files of children: a real child that sets its own."""

from __future__ import annotations

import subprocess
import sys

CHILD = (
    "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300)); print(flush=True); sys.stdin.read()"
)
PARENT = f"""
import resource, subprocess, sys
from reconciler.local.open_files import LIMIT, raise_limit, restore_of
raise_limit()
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
restore_of(child.pid)
print(resource.prlimit(child.pid, LIMIT))
child.stdin.close()
child.wait()
"""


def test_restore_of_child_with_own_limit_leaves_it() -> None:
    """Without CAP_SYS_RESOURCE, the kernel refuses to change it, as for a child that has changed its user."""
    done = subprocess.run([sys.executable, "-c", PARENT], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "(300, 300)\n", "")
