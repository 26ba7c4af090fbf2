"""Pipes for splice(2), lent to a flow for as long as there are bytes in them.

A pipe costs two descriptors and is only as good as it is large, so there are few: a flow takes one when it has much to
move, and gives it back as soon as it is empty, usually within the same wake-up. Where the kernel refuses a pipe
(EMFILE, or `pipe-user-pages-soft` of pipe(7) for an ordinary user) or makes it too small to be worth it, `take` gives
None, and the flow copies.
"""

from __future__ import annotations

import fcntl
import os

SIZES = (1 << 20, 1 << 18)
"""What F_SETPIPE_SZ is asked for, in bytes, best first. 1 MiB is what an ordinary user may have by default."""
MIN_SIZE = 1 << 16
MAX_IDLE = 8
"""Empty pipes that are kept."""
MAX_LENT = 256
"""Pipes that may be lent at a time: flows that wait for a slow sink with bytes in the pipe."""
REFUSALS_KEPT = 64
"""After a refusal of the kernel, this many flows copy before it is asked again."""


class Pipe:
    """A pipe: its two ends, and how many bytes are in it."""

    __slots__ = ("filled", "read_fd", "write_fd")

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self.read_fd = read_fd
        self.write_fd = write_fd
        self.filled = 0

    def close(self) -> None:
        """Close both ends; what is in the pipe is lost."""
        os.close(self.read_fd)
        os.close(self.write_fd)


class Pipes:
    """The pool."""

    def __init__(self) -> None:
        self._idle: list[Pipe] = []
        self._lent = 0
        self._refusals = 0

    def take(self) -> Pipe | None:
        """An empty pipe, or None when there is none to be had now."""
        if self._idle:
            self._lent += 1
            return self._idle.pop()
        if self._refusals:
            self._refusals -= 1
            return None
        if self._lent >= MAX_LENT:
            return None
        pipe = _make_pipe()
        if pipe is None:
            self._refusals = REFUSALS_KEPT
        else:
            self._lent += 1
        return pipe

    def give(self, pipe: Pipe) -> None:
        """Take a pipe back. One that still has bytes in it is closed."""
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
