"""What the reconciler tells Prometheus. Names, meanings and cardinality: `definitions.py`, and docs/metrics.md made of it."""

from reconciler.metrics.metrics import Metrics
from reconciler.metrics.sources import Sources

__all__ = ["Metrics", "Sources"]
