"""Health of the child processes of `zenvoy up`: detection of a process that hangs and must be replaced.

`Health` is pure: it receives the results of probes with the time. `answers` is the probe. `unready` reads readiness.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

PROBE_SECONDS = 1.0
"""Pause between two probes."""
ANSWER_SECONDS = 2.5
"""Timeout of a probe."""
LATE_SECONDS = PROBE_SECONDS + ANSWER_SECONDS + 2.0
"""A longer time between two probes means that the supervisor was stopped, suspended, or short of processor time."""
ANSWER_BYTES = 65_536
"""The longest answer that is read."""
HUNG_SECONDS = 10.0
"""A process that neither answers nor computes for this time is stopped or hung."""
BUSY_SECONDS = 45.0
"""The same for a process that computes: it may be processing a large configuration."""
START_SECONDS = 60.0
"""The same for a process that has not answered yet."""
MIN_FAILURES = 3
BUSY_SHARE = 0.02
"""The share of processor time from which a process counts as computing."""


class Health:
    """The health of one run of one process. Times are monotonic, in seconds."""

    def __init__(self, started: float, busy_seconds: float = BUSY_SECONDS) -> None:
        self._busy_seconds = busy_seconds
        self._last_probe = started
        self._failures = 0
        self._silent_since, self._cpu_then = started, 0.0
        self.ready = False
        """True once it has answered."""

    def probed(self, answered: bool, now: float, cpu_seconds: float) -> str | None:
        """Record the result of a probe, and the total processor time of the process.

        Returns the reason why the process must be replaced.
        """
        late, self._last_probe = now - self._last_probe > LATE_SECONDS, now
        if answered:
            self.ready = True
        if answered or late:
            self._failures, self._silent_since, self._cpu_then = 0, now, cpu_seconds
            return None
        self._failures += 1
        silence = now - self._silent_since
        if self._failures < MIN_FAILURES or silence < self._bound(silence, cpu_seconds):
            return None
        return f"no answer for {silence:.0f} s"

    def _bound(self, silence: float, cpu_seconds: float) -> float:
        busy = cpu_seconds - self._cpu_then >= BUSY_SHARE * silence
        bound = self._busy_seconds if busy else HUNG_SECONDS
        return bound if self.ready else max(bound, START_SECONDS)


async def answers(path: Path) -> bool:
    """Return whether a process answers HTTP at a Unix socket in time, with any status."""
    return (await _get(path, "/healthz", 5)).startswith(b"HTTP/")


async def unready(path: Path) -> str | None:
    """Return why a process is not ready, as its `/readyz` at a Unix socket says, or None if it is ready."""
    answer = await _get(path, "/readyz", ANSWER_BYTES)
    if not answer:
        return "it does not answer yet"
    head, _, body = answer.partition(b"\r\n\r\n")
    return None if head.split()[1:2] == [b"200"] else body.decode(errors="replace").strip()


async def _get(path: Path, target: str, max_bytes: int) -> bytes:
    """Return at most `max_bytes` of the answer of a Unix socket; empty if there is none in time.

    It connects through an open directory, since the path may exceed the 107 bytes of a Unix socket's address.
    """
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            directory = os.open(path.parent, os.O_PATH)
            try:
                reader, writer = await asyncio.open_unix_connection(f"/proc/self/fd/{directory}/{path.name}")
            finally:
                os.close(directory)
            try:
                writer.write(f"GET {target} HTTP/1.1\r\nHost: zenvoy\r\nConnection: close\r\n\r\n".encode())
                answer = b""
                while len(answer) < max_bytes and (chunk := await reader.read(max_bytes - len(answer))):
                    answer += chunk
                return answer
            finally:
                writer.transport.abort()
    except (OSError, TimeoutError):
        return b""
