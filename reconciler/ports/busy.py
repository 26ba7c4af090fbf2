"""Port for busy checks, which ask a service whether it works without a client."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from reconciler.core.busy import BusyAnswer

Report = Callable[[str, BusyAnswer], None]


class BusyChecks(Protocol):
    """The busy checks of all services. Each question is answered by a report, also if the check fails."""

    def ask(self, service: str, at: float) -> None:
        """Ask a service at `at` (seconds since the epoch). While it is being asked, this has no effect."""
