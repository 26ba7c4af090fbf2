"""The certificate authority of one installation: stored in a Secret, and replaced before it expires.

All functions depend only on the stored bytes and the time (seconds since the epoch), except for the keys that they
create.

An authority signs for about 21 months. Half a year before it expires, its successor is created and trusted, but does
not sign yet. Three months later the successor signs, and every certificate is replaced. The old authority stays trusted
until it expires, which is after the last certificate that it signed.

    created ────────────────────────── successor trusted ──────── successor signs ──────── expires
    0                                  550 days                   640 days                 730 days

So each certificate that is in use at any time is trusted by everyone whose files are less than three months old.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum, auto

from reconciler.server.credentials import x509
from reconciler.server.credentials.material import Material
from reconciler.server.credentials.x509 import Pair, Subject, Validity

DAY_SECONDS = 86_400.0
CERTIFICATE_SECONDS = 90 * DAY_SECONDS
AUTHORITY_SECONDS = 730 * DAY_SECONDS
PREPARE_SECONDS = 2 * CERTIFICATE_SECONDS
"""An authority that expires within this time needs a successor."""
PROMOTE_SECONDS = CERTIFICATE_SECONDS
"""An authority that expires within this time signs no more: a certificate must not outlive it."""
TRUSTED_SECONDS = 3600.0
"""The least time for which a successor is trusted before it signs, so that every mounted file has it."""
BACKDATED_SECONDS = 3600.0
"""Tolerated difference between clocks: a certificate is valid this long before it is made."""
CERTIFICATE, KEY, AUTHORITY = "tls.crt", "tls.key", "ca.crt"
"""Keys of a Secret, as `kubernetes.io/tls` and cert-manager name them."""
SUCCESSOR_CERTIFICATE, SUCCESSOR_KEY = "next.crt", "next.key"

Data = Mapping[str, bytes]
"""Contents of a Secret."""


class Step(Enum):
    """A change to an authority and its successor."""

    KEEP = auto()
    CREATE = auto()
    """Create an authority that signs at once: there is none, or it has expired."""
    PREPARE = auto()
    """Create the successor, which is trusted and does not sign."""
    PROMOTE = auto()
    """The successor signs from now on; the old authority stays trusted."""


@dataclass(frozen=True, slots=True)
class Authority:
    """An authority, its successor, and every authority that is trusted."""

    active: Pair
    successor: Pair | None
    others: tuple[bytes, ...] = ()
    """Certificates of earlier authorities that are still trusted."""

    @property
    def bundle(self) -> bytes:
        """Every trusted authority's certificate, PEM."""
        ours = [pair.certificate for pair in (self.active, self.successor) if pair]
        return b"".join(dict.fromkeys([*ours, *self.others]))

    @property
    def validity(self) -> Validity:
        """The period of the authority that signs."""
        return x509.read(self.active.certificate).validity

    def data(self) -> dict[str, bytes]:
        """Return the contents of its Secret."""
        kept = {CERTIFICATE: self.active.certificate, KEY: self.active.key, AUTHORITY: self.bundle}
        if self.successor:
            kept |= {SUCCESSOR_CERTIFICATE: self.successor.certificate, SUCCESSOR_KEY: self.successor.key}
        return kept


def authority_step(active: Validity | None, successor: Validity | None, now: float) -> Step:
    """Return the step that is due; after it, ask again."""
    if successor is not None and successor.until <= now:
        successor = None
    if active is None or active.until <= now:
        return Step.CREATE if successor is None else Step.PROMOTE
    left = active.until - now
    if successor is None:
        return Step.PREPARE if left <= PREPARE_SECONDS else Step.KEEP
    is_known = now >= successor.since + BACKDATED_SECONDS + TRUSTED_SECONDS
    return Step.PROMOTE if left <= PROMOTE_SECONDS and is_known else Step.KEEP


def is_due(validity: Validity, now: float) -> bool:
    """Return whether a certificate is to be replaced: two thirds of its life are over, or its clock was far ahead."""
    return now >= validity.since + (validity.until - validity.since) * 2 / 3 or now < validity.since


def stored(data: Data) -> Authority | None:
    """Return the authority that a Secret contains; None if there is no usable one."""
    active = _pair(data, CERTIFICATE, KEY)
    if active is None:
        return None
    successor = _pair(data, SUCCESSOR_CERTIFICATE, SUCCESSOR_KEY)
    own = {pair.certificate for pair in (active, successor) if pair}
    trusted = _readable(data.get(AUTHORITY, b""))
    return Authority(active, successor, tuple(one for one in trusted if one not in own))


def current(found: Authority | None, now: float) -> Authority:
    """Return the authority for this time: the same object if no change is due."""
    while True:
        active = found.validity if found else None
        successor = x509.read(found.successor.certificate).validity if found and found.successor else None
        step = authority_step(active, successor, now)
        if step is Step.KEEP and found is not None:
            return _without_expired(found, now)
        found = _stepped(found, step, now)


def issued(before: Material | None, authority: Authority, subject: Subject, now: float) -> Material:
    """Return a certificate of the authority for the subject: the previous one if it is usable and not due."""
    if before is not None and _is_usable(before, authority, subject, now):
        return replace(before, authority=authority.bundle)
    return certificate(authority, subject, now)


def certificate(authority: Authority, subject: Subject, now: float, seconds: float = CERTIFICATE_SECONDS) -> Material:
    """Return a new certificate of the authority for the subject; it ends no later than its authority's."""
    validity = Validity(now - BACKDATED_SECONDS, min(now + seconds, authority.validity.until))
    pair = x509.sign(authority.active, subject, validity)
    return Material(pair.certificate, pair.key, authority.bundle)


def material(data: Data) -> Material | None:
    """Return the certificate that a Secret contains; None if it is incomplete."""
    try:
        return Material(data[CERTIFICATE], data[KEY], data[AUTHORITY])
    except KeyError:
        return None


def contents(found: Material) -> dict[str, bytes]:
    """Return the contents of the Secret of a certificate."""
    return {CERTIFICATE: found.certificate, KEY: found.key, AUTHORITY: found.authority}


def dns_names(server_name: str, domain: str = "cluster.local") -> tuple[str, ...]:
    """Return the names under which clients in a cluster may address a Service: `web.shop.svc` also as `web.shop`."""
    within = server_name.removesuffix(".svc")
    if within == server_name:
        return (server_name,)
    return (server_name, within, within.partition(".")[0], f"{server_name}.{domain}")


def _stepped(found: Authority | None, step: Step, now: float) -> Authority:
    if step is Step.PREPARE and found is not None:
        return replace(found, successor=_new(now))
    others = (found.active.certificate, *found.others) if found else ()
    if step is Step.PROMOTE and found is not None and found.successor is not None:
        return Authority(found.successor, None, others)
    return Authority(_new(now), None, others)


def _without_expired(found: Authority, now: float) -> Authority:
    others = tuple(one for one in found.others if x509.read(one).validity.until > now)
    return found if others == found.others else replace(found, others=others)


def _new(now: float) -> Pair:
    made = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d")
    validity = Validity(now - BACKDATED_SECONDS, now + AUTHORITY_SECONDS)
    return x509.new_authority(f"zenvoy {made} {secrets.token_hex(4)}", validity)


def _is_usable(found: Material, authority: Authority, subject: Subject, now: float) -> bool:
    try:
        facts = x509.read(found.certificate)
        is_ours = x509.is_signed_by(found.certificate, authority.active.certificate)
        is_ours = is_ours and x509.matches(found.certificate, found.key)
    except ValueError:
        return False
    named = (facts.uris, facts.dns, facts.serves) == ((subject.uri,), subject.dns, subject.serves)
    return is_ours and named and not is_due(facts.validity, now)


def _pair(data: Data, certificate: str, key: str) -> Pair | None:
    try:
        pair = Pair(x509.split(data[certificate])[0], data[key])
        x509.read(pair.certificate)
        is_pair = x509.is_authority(pair.certificate) and x509.matches(pair.certificate, pair.key)
    except (KeyError, IndexError, ValueError):
        return None
    return pair if is_pair else None


def _readable(bundle: bytes) -> list[bytes]:
    """Return the certificates of a bundle that can be read."""
    found = []
    with suppress(ValueError):  # the bundle is not PEM
        for one in x509.split(bundle):
            with suppress(ValueError):
                x509.read(one)
                found.append(one)
    return found
