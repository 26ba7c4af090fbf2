"""The budget of file descriptors. It counts on its own, because asking the kernel would cost a system call."""

from __future__ import annotations

import os
import resource

RESERVE = 48
"""Descriptors for the holder stream, the metrics port, log files, and lingering refusals."""


class Budget:
    """The number of descriptors that connections use, and its limit."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit if limit is not None else raise_limit()
        self.used = len(os.listdir("/proc/self/fd")) + RESERVE

    @property
    def headroom(self) -> int:
        """Descriptors that held connections leave free for dials."""
        return min(256, max(4, self.limit // 32))

    def admits_held(self) -> bool:
        """Return whether the connection that was counted last may be held, with room left to dial for it."""
        return self.used + self.headroom <= self.limit

    def dials_allowed(self) -> int:
        """Return the number of dials that may be started; each may become a relayed connection."""
        return max(0, self.limit - self.used)


def raise_limit() -> int:
    """Raise RLIMIT_NOFILE to the hard limit and return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        with open("/proc/sys/fs/nr_open", encoding="ascii") as file:
            hard = int(file.read())
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
