"""Ports for the usage of services: samples of Envoy's counters, and busy checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from reconciler.core.busy import BusyAnswer
from reconciler.core.traffic import Sample


class TrafficSource(Protocol):
    """Source of samples. An Envoy that does not respond is in `Sample.missing` and raises no error."""

    async def sample(self) -> Sample:
        """Read the counters of all Envoys."""


Report = Callable[[str, BusyAnswer], None]


class BusyChecks(Protocol):
    """The busy checks of all services. Each question is answered by a report, also if the check fails."""

    def ask(self, service: str, at: float) -> None:
        """Ask a service at `at` (seconds since the epoch). While it is being asked, this has no effect."""
