"""Metrics of the reconciler for Prometheus. `definitions.py` lists them; docs/metrics.md is generated from it."""
