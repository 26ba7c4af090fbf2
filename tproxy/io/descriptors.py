"""How many connections the process's descriptors allow. The counts are the holder's own: no system call to ask."""

from __future__ import annotations

import os
import resource

RESERVE = 48
"""For the stream, the metrics port, log files, and refusals that linger."""


def raise_limit() -> int:
    """Raise RLIMIT_NOFILE to the hard limit; what it is then."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = int(open_max())
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def open_max() -> str:
    with open("/proc/sys/fs/nr_open", encoding="ascii") as file:
        return file.read()


class Budget:
    """Counts descriptors in use by connections, and says whether more fit."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit if limit is not None else raise_limit()
        self.used = len(os.listdir("/proc/self/fd")) + RESERVE

    @property
    def headroom(self) -> int:
        """What is kept free for dials when it is held connections that fill the rest."""
        return min(256, max(4, self.limit // 32))

    def admits(self) -> bool:
        """Whether the connection that was counted last may be held: there must be room to connect those that are."""
        return self.used + self.headroom <= self.limit

    def allows(self) -> int:
        """How many dials may be started, each of which may become a relayed connection."""
        return max(0, self.limit - self.used)
