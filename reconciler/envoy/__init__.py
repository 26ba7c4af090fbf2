"""Envoy as the data plane: routes by xDS, usage from its counters, directly or through Prometheus."""
