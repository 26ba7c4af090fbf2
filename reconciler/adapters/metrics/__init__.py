"""What the reconciler tells Prometheus. Names, meanings and cardinality: `table.py`, and docs/metrics.md made of it."""

from reconciler.adapters.metrics.metrics import Metrics
from reconciler.adapters.metrics.world import World

__all__ = ["Metrics", "World"]
