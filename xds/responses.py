"""Writes what Envoy receives: DiscoveryResponse and DeltaDiscoveryResponse around resources that are encoded already.

Pure. The counterpart of `requests.py`. Messages: envoy/service/discovery/v3/discovery.proto
"""

from __future__ import annotations

from collections.abc import Iterable

from xds.snapshot import Resource
from xds.wire import field, text


def delta_response(
    type_url: str, version: str, nonce: str, resources: Iterable[Resource], removed: Iterable[str]
) -> bytes:
    """Encode a DeltaDiscoveryResponse; `version` is for people, each resource has its own."""
    type_field = text(1, type_url)
    framed = (
        field(2, text(3, res.name) + text(1, res.version) + field(2, type_field + field(2, res.body)))
        for res in resources
    )
    gone = (text(6, name) for name in removed)
    return b"".join((text(1, version), *framed, text(4, type_url), *gone, text(5, nonce)))


def sotw_response(type_url: str, version: str, nonce: str, resources: Iterable[Resource]) -> bytes:
    """Encode a DiscoveryResponse."""
    type_field = text(1, type_url)
    framed = (field(2, type_field + field(2, res.body)) for res in resources)
    return b"".join((text(1, version), *framed, text(4, type_url), text(5, nonce)))
