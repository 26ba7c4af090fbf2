"""The messages of the discovery protocol as betterproto2 has them; `xds` reads and writes its own."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from envoy_data_plane.envoy.service.discovery.v3 import (
        DeltaDiscoveryRequest,
        DeltaDiscoveryResponse,
        DiscoveryRequest,
        DiscoveryResponse,
    )
    from envoy_data_plane.google.rpc import Status

__all__ = ["DeltaDiscoveryRequest", "DeltaDiscoveryResponse", "DiscoveryRequest", "DiscoveryResponse", "Status"]
