"""Capture of Services: callers of a Service reach the proxy."""
