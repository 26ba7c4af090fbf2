"""Prometheus as a source of traffic."""
