"""Where samples of Envoy's counters come from: Envoy's admin port, or Prometheus."""

from __future__ import annotations

from typing import Protocol

from reconciler.core.traffic import Sample


class TrafficSource(Protocol):
    """Takes samples. An Envoy that does not answer is in `Sample.missing`; nothing is raised for it."""

    async def sample(self) -> Sample:
        """Read all Envoys' counters now."""
