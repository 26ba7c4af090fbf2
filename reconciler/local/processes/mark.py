"""The mark of a service: a number that all its processes carry and never lose.

The number is the soft limit of RLIMIT_LOCKS, which Linux has not enforced since 2.4.25. Children inherit it. Unlike an
environment variable, it survives programs that overwrite their environment (nginx, Redis, PostgreSQL); unlike a process
group or session, it survives setsid(2). It needs no privilege.
Source: getrlimit(2), prlimit(2), proc_pid_limits(5).
"""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

RLIMIT_LOCKS = 10
_SERVICE_BITS = 39
_RUN_BITS = 23
_LINE = re.compile(rb"^Max file locks +(\d+) ", re.MULTILINE)
NOT_THERE = (FileNotFoundError, ProcessLookupError, PermissionError)
"""Errors of reading a process that has ended or belongs to another user. Other errors must not look like an end."""


def mark(run: str, service: str) -> int:
    """Return the mark of a service; `run` names its state directory."""
    return _hash(run, _RUN_BITS) << _SERVICE_BITS | _hash(f"{run}/{service}", _SERVICE_BITS)


def belongs_to(number: int, run: str) -> bool:
    """Return whether a mark belongs to a service of this state directory."""
    return number >> _SERVICE_BITS == _hash(run, _RUN_BITS)


@contextmanager
def marking(number: int) -> Iterator[None]:
    """Mark all processes that this process starts in the context; nothing may be awaited in it.

    Raises ValueError if a hard limit forbids it.
    """
    soft, hard = resource.getrlimit(RLIMIT_LOCKS)
    if hard not in (resource.RLIM_INFINITY, max(number, hard)):
        raise ValueError(f"the hard limit of file locks is {hard}, and marks need it unlimited: ulimit -Hx unlimited")
    resource.setrlimit(RLIMIT_LOCKS, (number, hard))
    try:
        yield
    finally:
        resource.setrlimit(RLIMIT_LOCKS, (soft, hard))


def read_mark(pid: int) -> int | None:
    """Return the mark of a process; None if it has none, or has ended."""
    try:
        number = resource.prlimit(pid, RLIMIT_LOCKS)[0]
    except PermissionError:
        number = _read_as_other_user(pid)
    except ProcessLookupError:
        return None
    return number if number > 0 else None


def _read_as_other_user(pid: int) -> int:
    try:
        found = _LINE.search(Path(f"/proc/{pid}/limits").read_bytes())
    except NOT_THERE:
        found = None
    return int(found[1]) if found else resource.RLIM_INFINITY


def _hash(text: str, bits: int) -> int:
    return int.from_bytes(sha256(text.encode()).digest()[:8], "big") >> (64 - bits) or 1
