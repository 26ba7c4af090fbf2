"""Kubernetes as the place where services run. Only `client` calls the API server."""

import stamina.instrumentation

stamina.instrumentation.set_on_retry_hooks([])  # callers log their retries: stamina cannot name what failed
