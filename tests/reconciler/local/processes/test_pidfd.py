"""Watching of a process when this one has too many open files."""

from __future__ import annotations

import errno
import os
import subprocess
from signal import SIGKILL

import pytest

from reconciler.local.processes import pidfd


@pytest.mark.parametrize("call", ["pidfd_open", "process_info"])
async def test_of_child_without_descriptor_kills_it(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """Its start counts as failed, so nothing would stop it later."""

    def fail(_: int) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os if call == "pidfd_open" else pidfd, call, fail)
    child = subprocess.Popen(["sleep", "1000"])
    try:
        with pytest.raises(OSError, match="Too many open files"):
            pidfd.WatchedProcess.of_child(child)
        assert child.returncode == -SIGKILL
    finally:
        child.kill()
        child.wait()
