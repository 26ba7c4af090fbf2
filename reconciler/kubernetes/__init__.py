"""Kubernetes as the place where services run. `api.py` alone speaks to the API server; the rest is built on it."""

import stamina.instrumentation

stamina.instrumentation.set_on_retry_hooks([])  # callers log their retries: stamina cannot name what failed
