"""Exit codes of `zenvoy`, which scripts may rely on."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of `zenvoy`; 0 is success."""

    FAILED = 1
    """The result did not occur, `up` could not start, the cluster refused a request, or `doctor` found a problem."""
    USAGE = 2
    """A usage error, or an invalid services file."""
    NOT_RUNNING = 3
    """zenvoy is not running with this state directory, or no cluster with zenvoy is reachable."""
    NO_SUCH_SERVICE = 4
    """The service does not exist."""
