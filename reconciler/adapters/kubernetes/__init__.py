"""Kubernetes as the place where services run. `api.py` alone speaks to the API server; the rest is built on it."""
