"""Pipes for splice(2), lent to a flow while they contain bytes.

A pipe uses two descriptors and must be large to be useful, so there are few. A flow takes one for a bulk transfer and
returns it as soon as it is empty, usually within the same event. If the kernel refuses a pipe (EMFILE, or
`pipe-user-pages-soft` of pipe(7) for an unprivileged user) or makes it too small, `take` returns None and the flow
copies.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass

SIZES = (1 << 20, 1 << 18)
"""Bytes requested with F_SETPIPE_SZ, best first. 1 MiB is the default limit of an unprivileged user."""
MIN_SIZE = 1 << 16
MAX_IDLE = 8
"""Empty pipes that are kept."""
MAX_LENT = 256
"""Pipes that may be lent at a time: flows that wait for a slow sink with bytes in the pipe."""
COPIES_AFTER_REFUSAL = 64
"""Number of flows that copy before the kernel is asked for a pipe again."""


@dataclass(slots=True, eq=False)
class Pipe:
    """A pipe: its two ends and the number of bytes in it."""

    read_fd: int
    write_fd: int
    filled: int = 0

    def close(self) -> None:
        """Close both ends and lose the bytes in the pipe."""
        os.close(self.read_fd)
        os.close(self.write_fd)


class Pipes:
    """A pool of pipes."""

    def __init__(self) -> None:
        self._idle: list[Pipe] = []
        self._lent = 0
        self._copies = 0

    def take(self) -> Pipe | None:
        """Return an empty pipe, or None if none is available."""
        if self._idle:
            self._lent += 1
            return self._idle.pop()
        if self._copies:
            self._copies -= 1
            return None
        if self._lent >= MAX_LENT:
            return None
        pipe = _make_pipe()
        if pipe is None:
            self._copies = COPIES_AFTER_REFUSAL
        else:
            self._lent += 1
        return pipe

    def give(self, pipe: Pipe) -> None:
        """Take a pipe back, and close it if it contains bytes."""
        self._lent -= 1
        if pipe.filled or len(self._idle) >= MAX_IDLE:
            pipe.close()
        else:
            self._idle.append(pipe)

    def close(self) -> None:
        """Close the pipes that are not lent."""
        while self._idle:
            self._idle.pop().close()


def _make_pipe() -> Pipe | None:
    try:
        pipe = Pipe(*os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError:
        return None
    for size in SIZES:
        try:
            fcntl.fcntl(pipe.write_fd, fcntl.F_SETPIPE_SZ, size)
        except OSError:
            continue
        break
    if fcntl.fcntl(pipe.write_fd, fcntl.F_GETPIPE_SZ) < MIN_SIZE:
        pipe.close()
        return None
    return pipe
