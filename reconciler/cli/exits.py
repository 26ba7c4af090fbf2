"""What the exit codes mean; scripts may rely on them."""

from __future__ import annotations

from enum import IntEnum

DESCRIPTION = """
Exit codes: 0 done; 1 it did not come about (a service that did not fall asleep, an `up` that could not start), the
cluster refused it, or `doctor` found something; 2 wrong usage, or mistakes in the file; 3 no zenvoy runs with this
state directory, or no cluster with zenvoy in it can be reached; 4 there is no such service.
"""


class Exit(IntEnum):
    """Exit codes of `zenvoy`."""

    FAILED = 1
    USAGE = 2
    NOT_RUNNING = 3
    NO_SUCH_SERVICE = 4
