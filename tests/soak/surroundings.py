"""Surroundings of `zenvoy up` that fail: a wall clock that is set, and a disk that is full.

The machine's own clock stays as it is: a preloaded library, `stepped_clock.c`, changes what the reconciler, the holder,
and the keeper read. Debian's libfaketime does not serve here: under it, Python's `time.sleep` fails after each step,
since it moves waits of the monotonic clock too.
"""

from __future__ import annotations

import errno
import random
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

SOURCE = Path(__file__).with_name("stepped_clock.c")
DISK_BYTES = 32 << 20
STEP_SECONDS = (60.0, 6 * 3600.0)
"""The shortest and the longest step of the clock, in either direction."""
_CHUNK = 1 << 16


class SteppedClock:
    """The wall clock of processes that run with `environment`."""

    def __init__(self, directory: Path) -> None:
        """Build the library. Needs a C compiler."""
        directory.mkdir(parents=True, exist_ok=True)
        library, self._ahead = directory / "stepped_clock.so", directory / "clock"
        command = ["cc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", str(library), str(SOURCE), "-ldl"]
        subprocess.run(command, check=True, timeout=120)
        self.set(0)
        self.environment: Mapping[str, str] = {"LD_PRELOAD": str(library), "SOAK_CLOCK": str(self._ahead)}

    def set(self, ahead_seconds: int) -> None:
        """Set the clock to so many seconds after the true time."""
        content = ahead_seconds.to_bytes(8, "little", signed=True)
        if not self._ahead.exists():
            self._ahead.write_bytes(content)
        with self._ahead.open("r+b", buffering=0) as file:  # the processes have mapped this file
            file.write(content)


def step(chance: random.Random, ahead_seconds: int) -> int:
    """Return the next lead of the clock: a step of minutes to hours towards or away from the true time."""
    size = int(chance.uniform(*STEP_SECONDS))
    return ahead_seconds + (size if chance.random() < 0.5 else -size)


class SmallDisk:
    """A file system in memory at a directory while its context is entered. Needs root."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ballast = path / "ballast"

    def __enter__(self) -> SmallDisk:
        self._path.mkdir(parents=True, exist_ok=True)
        options = f"size={DISK_BYTES},mode=0700"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "soak", str(self._path)], check=True, timeout=60)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        subprocess.run(["umount", "--lazy", str(self._path)], check=True, timeout=60)

    def fill(self) -> None:
        """Use all space that is left."""
        with self._ballast.open("ab", buffering=0) as file:
            size = _CHUNK
            while size:
                try:
                    file.write(bytes(size))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    size //= 2

    def empty(self) -> None:
        """Free the space again."""
        self._ballast.unlink(missing_ok=True)
