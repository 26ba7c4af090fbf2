"""Health of the processes of `zenvoy up`: when a process that runs no longer works and must be replaced.

`Health` is pure: looks go in, with the clock; a verdict comes out. `answers` is the look itself.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

LOOK_SECONDS = 1.0
"""Pause between two looks."""
ANSWER_SECONDS = 2.5
"""Time that a process has for one answer."""
LATE_SECONDS = LOOK_SECONDS + ANSWER_SECONDS + 2.0
"""Two looks further apart than this: the supervisor itself was stopped, suspended, or short of processor time."""
HUNG_SECONDS = 10.0
"""A process that answers nothing for so long, and computes nothing, is stopped or hung."""
BUSY_SECONDS = 45.0
"""The same for a process that uses its processor: it may be at work on a large configuration."""
START_SECONDS = 60.0
"""The same for a process that has not answered yet."""
LEAST_LOOKS = 3
BUSY_SHARE = 0.02
"""Processor time, as a share of the silence, from which on a process counts as busy."""


class Health:
    """What the looks at one run of one process add up to. Clocks are monotonic, in seconds."""

    def __init__(self, started: float, busy_seconds: float = BUSY_SECONDS) -> None:
        self._busy_seconds = busy_seconds
        self._last_look = started
        self._failures = 0
        self._silent_since, self._cpu_then = started, 0.0
        self.ready = False
        """Whether it has answered at all."""

    def saw(self, answered: bool, now: float, cpu_seconds: float) -> str | None:
        """Take the result of a look, and the processor time that the process has used in all.

        Returns why the process must be replaced.
        """
        late, self._last_look = now - self._last_look > LATE_SECONDS, now
        if answered:
            self.ready = True
        if answered or late:
            self._failures, self._silent_since, self._cpu_then = 0, now, cpu_seconds
            return None
        self._failures += 1
        silence = now - self._silent_since
        if self._failures < LEAST_LOOKS or silence < self._bound(silence, cpu_seconds):
            return None
        return f"no answer for {silence:.0f} s"

    def _bound(self, silence: float, cpu_seconds: float) -> float:
        busy = cpu_seconds - self._cpu_then >= BUSY_SHARE * silence
        bound = self._busy_seconds if busy else HUNG_SECONDS
        return bound if self.ready else max(bound, START_SECONDS)


async def answers(path: Path, timeout: float = ANSWER_SECONDS) -> bool:
    """Return whether a process answers HTTP at a Unix socket in time; any status will do.

    By way of an open directory: the path of a Unix socket is at most 107 bytes, ours may be longer.
    """
    try:
        async with asyncio.timeout(timeout):
            directory = os.open(path.parent, os.O_PATH)
            try:
                reader, writer = await asyncio.open_unix_connection(f"/proc/self/fd/{directory}/{path.name}")
            finally:
                os.close(directory)
            try:
                writer.write(b"GET /healthz HTTP/1.1\r\nHost: zenvoy\r\nConnection: close\r\n\r\n")
                return (await reader.read(5)).startswith(b"HTTP/")
            finally:
                writer.transport.abort()
    except (OSError, TimeoutError):
        return False
