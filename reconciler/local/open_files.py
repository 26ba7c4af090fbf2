"""Limits on open files (RLIMIT_NOFILE) of zenvoy's processes, of Envoy, and of the programs of services.

zenvoy's processes raise their soft limit to the hard one, so that clients cannot use up the descriptors that a wake
needs. Programs of services keep the original limit, since some break with a higher one.
"""

from __future__ import annotations

import resource
from contextlib import suppress

LIMIT = resource.RLIMIT_NOFILE
_inherited: tuple[int, int] | None = None


def limit(asked: str) -> int:
    """Return a limit that is given as a number, or as `soft` or `hard`, the limits of this process."""
    soft, hard = resource.getrlimit(LIMIT)
    return {"soft": soft, "hard": hard}.get(asked) or int(asked)


def raise_limit() -> None:
    """Raise the soft limit of this process to the hard one."""
    global _inherited
    _inherited = _inherited or resource.getrlimit(LIMIT)
    hard = _inherited[1]
    resource.setrlimit(LIMIT, (hard, hard))


def raise_of(pid: int) -> None:
    """Raise the soft limit of a child to the hard one, unless it has ended."""
    with suppress(ProcessLookupError):
        hard = resource.prlimit(pid, LIMIT)[1]
        resource.prlimit(pid, LIMIT, (hard, hard))


def restore_of(pid: int) -> None:
    """Give a child the limits that this process had before `raise_limit`, unless it has ended.

    A child that has changed its limits or its user is skipped: changing it would need CAP_SYS_RESOURCE.
    """
    if _inherited:
        with suppress(ProcessLookupError, PermissionError):
            if resource.prlimit(pid, LIMIT) == resource.getrlimit(LIMIT):
                resource.prlimit(pid, LIMIT, _inherited)
