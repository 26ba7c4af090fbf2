"""The four resource types that zenvoy serves, in the order in which Envoy must receive them (make before break)."""

from __future__ import annotations

CDS = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
EDS = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
LDS = "type.googleapis.com/envoy.config.listener.v3.Listener"
RDS = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"

ORDER = (CDS, EDS, LDS, RDS)
WILDCARD = frozenset({CDS, LDS})
"""Types whose resources a client receives without naming them. A state-of-the-world response contains all of them.

https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#how-the-client-specifies-what-resources-to-return
"""
