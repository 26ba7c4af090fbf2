"""What the reconciler tells Prometheus. Names, meanings and cardinality: `table.py`, and docs/metrics.md made of it."""

from reconciler.metrics.metrics import Metrics
from reconciler.metrics.world import World

__all__ = ["Metrics", "World"]
