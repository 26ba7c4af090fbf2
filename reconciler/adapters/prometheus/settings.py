"""Where Prometheus is: apart from the client, which takes half a second to import and which not everybody needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PrometheusSettings:
    """Where Prometheus is, and how to ask it."""

    url: str
    scrape_interval: float
    """Seconds between two scrapes of Envoy; one that is two of them old is too old."""
    timeout: float = 5.0
    """Seconds that it may be silent for within an answer."""
    headers: Mapping[str, str] | None = None
    bearer_token_file: str | None = None
    """Read again for each round, since it may be rotated."""
    ca_file: str | None = None

    @property
    def most(self) -> float:
        """Seconds that one sample may take: an answer may come in any number of pieces."""
        return 3 * self.timeout
