"""The alarm, which turns deadlines into events."""

from __future__ import annotations

from typing import Protocol

from reconciler.plan import Deadline


class Alarm(Protocol):
    """Calls back, with the service and the deadline, once a deadline has passed; late is allowed, never is not."""

    def arm(self, service: str, deadline: Deadline | None) -> None:
        """The service's only deadline from now on; None: it has none."""
