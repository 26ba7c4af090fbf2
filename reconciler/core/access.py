"""Access to the gRPC port: the identity of a peer, and the name under which it may open a stream. Pure.

The URI SAN of a certificate gives the role of its holder:

| URI SAN | holder of the certificate |
|---|---|
| `spiffe://zenvoy/reconciler` | a replica of the reconciler; has the DNS name that clients verify |
| `spiffe://zenvoy/proxy` | an Envoy or a holder in any pod of the chart's proxy |
| `spiffe://zenvoy/envoy/<node-id>` | one named Envoy and its holder, which join from outside the chart |

The TLS handshake refuses a certificate that another authority signed. Therefore the trust domain in the URI is a
constant, and the authority determines the installation of a certificate.

The role gives the streams:

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

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

PREFIX = "spiffe://zenvoy/"
_ANY_ENVOY = f"{PREFIX}envoy/<node-id>"
_NODE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")


class Role(StrEnum):
    """A role on the gRPC port; its value is the first segment of the URI's path."""

    RECONCILER = "reconciler"
    PROXY = "proxy"
    ENVOY = "envoy"


class NoIdentity(ValueError):
    """A certificate that gives no role, or more than one; the text is for people."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A role, and the node id where the role is that of one named Envoy."""

    role: Role
    node: str = ""

    @property
    def uri(self) -> str:
        """The URI SAN that gives this identity."""
        return f"{PREFIX}{self.role}/{self.node}" if self.node else f"{PREFIX}{self.role}"


RECONCILER = Identity(Role.RECONCILER)
PROXY = Identity(Role.PROXY)


def envoy(node: str) -> Identity:
    """Return the identity of one named Envoy. Raises `ValueError` if the node id cannot be part of a URI SAN."""
    if not _NODE.fullmatch(node):
        raise ValueError(
            f"node id {node[:64]!r} is not valid in a certificate: use up to 253 letters, digits, '.', '_' and '-', "
            "with a letter or digit at both ends"
        )
    return Identity(Role.ENVOY, node)


def identity(uris: Iterable[str]) -> Identity:
    """Return the identity that the URI SANs of a verified certificate give. Raises `NoIdentity`.

    `uris` must not contain SANs of other kinds (gRPC's `peer_uri`, not `x509_subject_alternative_name`): a DNS name
    proves no role. URIs outside `spiffe://zenvoy/` are ignored.
    """
    found = [_parsed(uri) for uri in uris if uri.startswith(PREFIX)]
    if len(found) == 1:
        return found[0]
    wrong = "has no URI SAN of zenvoy" if not found else "has more than one URI SAN of zenvoy"
    raise NoIdentity(f"the certificate {wrong}; issue it with one of {expected()}")


def expected() -> str:
    """Return the URI SANs that zenvoy accepts, for messages."""
    return f"{RECONCILER.uri}, {PROXY.uri} or {_ANY_ENVOY}"


def _parsed(uri: str) -> Identity:
    role, _, node = uri.removeprefix(PREFIX).partition("/")
    for single in (RECONCILER, PROXY):
        if uri == single.uri:
            return single
    if role != Role.ENVOY or not _NODE.fullmatch(node):
        raise NoIdentity(f"URI SAN {uri[:128]!r} is not valid; use {expected()}")
    return Identity(Role.ENVOY, node)


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
        wanted = RECONCILER.uri if kind is StreamKind.PEER else f"{PROXY.uri} or {_ANY_ENVOY}"
        return Denied(f"a certificate of {proved.uri} does not give access to the {kind} stream; use one of {wanted}")
    if kind is StreamKind.PEER:
        return _replica(peer.address, listed)
    if proved.role is Role.ENVOY:
        return Entitled(proved.node)
    if listed.proxies is None:
        return Denied(
            f"a certificate of {proved.uri} needs the EndpointSlices of the proxy (--proxies-service); "
            f"use one of {_ANY_ENVOY}"
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
        f"chart needs a certificate of {_ANY_ENVOY}"
    )
