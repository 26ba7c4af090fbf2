"""Identity of a peer on the gRPC port: the role that the URI SAN of its certificate gives. Pure.

| URI SAN | holder of the certificate |
|---|---|
| `spiffe://zenvoy/reconciler` | a replica of the reconciler; has the DNS name that clients verify |
| `spiffe://zenvoy/proxy` | an Envoy or a holder in any pod of the chart's proxy |
| `spiffe://zenvoy/envoy/<node-id>` | one named Envoy and its holder, which join from outside the chart |

The TLS handshake refuses a certificate that another authority signed. Therefore the trust domain in the URI is a
constant, and the authority determines the installation of a certificate.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

PREFIX = "spiffe://zenvoy/"
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
    return f"{RECONCILER.uri}, {PROXY.uri} or {PREFIX}{Role.ENVOY}/<node-id>"


def _parsed(uri: str) -> Identity:
    role, _, node = uri.removeprefix(PREFIX).partition("/")
    for single in (RECONCILER, PROXY):
        if uri == single.uri:
            return single
    if role != Role.ENVOY or not _NODE.fullmatch(node):
        raise NoIdentity(f"URI SAN {uri[:128]!r} is not valid; use {expected()}")
    return Identity(Role.ENVOY, node)
