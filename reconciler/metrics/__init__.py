"""Metrics of the reconciler for Prometheus. `definitions.py` lists them; docs/metrics.md is generated from it."""

from reconciler.metrics.metrics import Metrics
from reconciler.metrics.sources import Sources

__all__ = ["Metrics", "Sources"]
