"""Lifetimes of certificates, and the next step for an authority. Pure; times are seconds since the epoch.

An authority signs for about 21 months. Half a year before it expires, its successor is created and trusted, but does
not sign yet. Three months later the successor signs, and every certificate is replaced. The old authority stays trusted
until it expires, which is after the last certificate that it signed.

    created ────────────────────────── successor trusted ──────── successor signs ──────── expires
    0                                  550 days                   640 days                 730 days

So each certificate that is in use at any time is trusted by everyone whose files are less than three months old.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

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


@dataclass(frozen=True, slots=True)
class Validity:
    """The period in which a certificate is valid, both ends included."""

    since: float
    until: float


class Step(Enum):
    """A change to an authority and its successor."""

    KEEP = auto()
    CREATE = auto()
    """Create an authority that signs at once: there is none, or it has expired."""
    PREPARE = auto()
    """Create the successor, which is trusted and does not sign."""
    PROMOTE = auto()
    """The successor signs from now on; the old authority stays trusted."""


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


def authority_validity(now: float) -> Validity:
    """Return the period for an authority that is created now."""
    return Validity(now - BACKDATED_SECONDS, now + AUTHORITY_SECONDS)


def certificate_validity(now: float, authority: Validity, seconds: float = CERTIFICATE_SECONDS) -> Validity:
    """Return the period for a certificate that is signed now; it ends no later than its authority's."""
    return Validity(now - BACKDATED_SECONDS, min(now + seconds, authority.until))


def dns_names(server_name: str, domain: str = "cluster.local") -> tuple[str, ...]:
    """Return the names under which clients in a cluster may address a Service: `web.shop.svc` also as `web.shop`."""
    within = server_name.removesuffix(".svc")
    if within == server_name:
        return (server_name,)
    return (server_name, within, within.partition(".")[0], f"{server_name}.{domain}")
