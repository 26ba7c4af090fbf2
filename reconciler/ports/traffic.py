"""Port for samples of Envoy's counters, from Envoy's admin port or Prometheus."""

from __future__ import annotations

from typing import Protocol

from reconciler.core.traffic import Sample


class TrafficSource(Protocol):
    """Source of samples. An Envoy that does not respond is in `Sample.missing` and raises no error."""

    async def sample(self) -> Sample:
        """Read the counters of all Envoys."""
