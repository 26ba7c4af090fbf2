"""Entitlement on the gRPC port: the name under which a peer may open a stream. Pure.

| peer | streams of Envoys and holders | stream of replicas |
|---|---|---|
| on a Unix socket | any name: the mode of its directory protects it | any name |
| certificate of a replica | refused | its address, if an endpoint of the reconciler's Service |
| certificate of the proxy | the pod that the proxy's Service has at its address | refused |
| certificate of one Envoy | the node id in the certificate | refused |
| other certificate | refused | refused |
| without encryption | as the proxy's; any name where the proxy's Service is not known | as a replica's |

An address that is missing from the EndpointSlices may belong to a pod that has just started: the answer may change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from reconciler.core.access.identity import PREFIX, PROXY, RECONCILER, NoIdentity, Role, identity

_OF_ENVOYS = f"{PROXY.uri} or {PREFIX}{Role.ENVOY}/<node-id>"


class StreamKind(StrEnum):
    """A kind of stream on the gRPC port."""

    XDS = "xDS"
    HOLDER = "holder"
    PEER = "peer"


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a stream, as the connection proves it."""

    address: str
    """Its IP address; empty on a Unix socket."""
    encrypted: bool = False
    """It has a certificate that a trusted authority signed."""
    uris: tuple[str, ...] = ()
    """The URI SANs of that certificate."""


@dataclass(frozen=True, slots=True)
class Listed:
    """The endpoints of zenvoy's own Services, ready or not."""

    proxies: Mapping[str, str] | None = None
    """Pods of the proxy by IP address; None: the proxy's Service is not known."""
    replicas: frozenset[str] = frozenset()
    """IP addresses of the reconciler's replicas."""


@dataclass(frozen=True, slots=True)
class Entitled:
    """The peer may open the stream."""

    name: str | None
    """The only name that it may use; None: any."""


@dataclass(frozen=True, slots=True)
class Denied:
    """The peer may not open the stream; `reason` gives the cause and the remedy."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unlisted:
    """The EndpointSlices do not have the peer's address, or not yet."""

    reason: str


Entitlement = Entitled | Denied | Unlisted


def entitlement(kind: StreamKind, peer: Peer, listed: Listed) -> Entitlement:
    """Return the name under which a peer may open a stream, or why it may not."""
    if not peer.address:
        return Entitled(None)
    if not peer.encrypted:
        if kind is StreamKind.PEER:
            return _replica(peer.address, listed)
        return Entitled(None) if listed.proxies is None else _proxy(peer.address, listed.proxies)
    try:
        proved = identity(peer.uris)
    except NoIdentity as error:
        return Denied(f"{error} (docs/how-to/mtls.md)")
    if (proved.role is Role.RECONCILER) is not (kind is StreamKind.PEER):
        wanted = RECONCILER.uri if kind is StreamKind.PEER else _OF_ENVOYS
        return Denied(f"a certificate of {proved.uri} does not give access to the {kind} stream; use one of {wanted}")
    if kind is StreamKind.PEER:
        return _replica(peer.address, listed)
    if proved.role is Role.ENVOY:
        return Entitled(proved.node)
    if listed.proxies is None:
        return Denied(
            f"a certificate of {proved.uri} needs the EndpointSlices of the proxy (--proxies-service); "
            f"use one of {PREFIX}{Role.ENVOY}/<node-id>"
        )
    return _proxy(peer.address, listed.proxies)


def _replica(address: str, listed: Listed) -> Entitlement:
    if address in listed.replicas:
        return Entitled(address)
    return Unlisted(f"{address} is not an endpoint of the reconciler's Service; see --peers-service, and retry")


def _proxy(address: str, proxies: Mapping[str, str]) -> Entitlement:
    if pod := proxies.get(address):
        return Entitled(pod)
    return Unlisted(
        f"{address} is not an endpoint of the proxy's Service; see --proxies-service, and retry. An Envoy outside the "
        f"chart needs a certificate of {PREFIX}{Role.ENVOY}/<node-id>"
    )
