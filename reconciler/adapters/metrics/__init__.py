"""What the reconciler tells Prometheus. Names, meanings and cardinality: `table.py`, and docs/metrics.md made of it."""

from reconciler.adapters.metrics.metrics import Metrics
from reconciler.adapters.metrics.taps import CountedRouter, ScrapedHttp
from reconciler.adapters.metrics.world import World

__all__ = ["CountedRouter", "Metrics", "ScrapedHttp", "World"]
