"""The limit on open files (RLIMIT_NOFILE) of our processes, of Envoy, and of the programs of services.

Each process of ours raises its soft limit to the hard one, so that connections of strangers do not take the descriptors
that a wake needs. Programs of services get back what they would have had: some break with more.
"""

from __future__ import annotations

import resource
from contextlib import suppress

LIMIT = resource.RLIMIT_NOFILE
_inherited: tuple[int, int] | None = None


def limit(asked: str) -> int:
    """Return the number that is meant by a number, or by `soft` or `hard`: those limits of this process."""
    soft, hard = resource.getrlimit(LIMIT)
    return {"soft": soft, "hard": hard}.get(asked) or int(asked)


def raise_limit() -> int:
    """Raise the soft limit of this process to the hard one, and return it."""
    global _inherited
    _inherited = _inherited or resource.getrlimit(LIMIT)
    hard = _inherited[1]
    resource.setrlimit(LIMIT, (hard, hard))
    return hard


def raise_of(pid: int) -> None:
    """Raise the soft limit of a child to the hard one, if it still runs."""
    with suppress(ProcessLookupError):
        hard = resource.prlimit(pid, LIMIT)[1]
        resource.prlimit(pid, LIMIT, (hard, hard))


def restore_of(pid: int) -> None:
    """Give a child the limits that this process had before `raise_limit`, if it still runs.

    Leave a child alone that has changed its limits itself, or its user: only CAP_SYS_RESOURCE permits that.
    """
    if _inherited:
        with suppress(ProcessLookupError, PermissionError):
            if resource.prlimit(pid, LIMIT) == resource.getrlimit(LIMIT):
                resource.prlimit(pid, LIMIT, _inherited)
