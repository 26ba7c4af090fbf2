"""Port for deadlines."""

from __future__ import annotations

from typing import Protocol

from reconciler.plan import Deadline


class Alarm(Protocol):
    """Alarm that calls back with the service and its deadline once the deadline has passed, perhaps late."""

    def arm(self, service: str, deadline: Deadline | None) -> None:
        """Replace the service's deadline; None disarms it."""
