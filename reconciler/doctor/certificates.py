"""Findings about mutual TLS, by what each reconciler reports of itself. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from reconciler.doctor.connected import World
from reconciler.doctor.finding import Examined, Finding

SOON = timedelta(days=7)
"""Certificates are renewed a month before they expire; one with less time left than this was not."""
RENEW = "see the log of the reconcilers (self-issued) or of cert-manager, or renew your own: docs/how-to/mtls.md"
PLAINTEXT = (
    "its gRPC port is open without TLS: every process that reaches it can read all routes, wake services and keep them "
    "awake"
)


def examined(worlds: Mapping[str, World], now: datetime) -> Examined:
    """Return a finding for each reconciler in plaintext, and for each certificate that was not renewed in time."""
    found: list[Finding] = []
    ends: list[datetime] = []
    for name, world in worlds.items():
        standing = world.get("standing") or {}
        if standing.get("plaintext"):
            found.append(Finding(name, PLAINTEXT, "helm upgrade with mtls.enabled=true: docs/how-to/mtls.md"))
        until = {part: datetime.fromisoformat(text) for part, text in standing.get("certificates", {}).items()}
        ends += until.values()
        found += _late(name, until, now)
    said = f"valid until {min(ends):%Y-%m-%d}" if ends else "none"
    return Examined("certificates", said, tuple(found))


def _late(reconciler: str, until: Mapping[str, datetime], now: datetime) -> Iterator[Finding]:
    for part, end in until.items():
        if end - now < SOON:
            verb = "expired" if end <= now else "expires"
            yield Finding(reconciler, f"the certificate of {part} {verb} at {end:%Y-%m-%d %H:%M} UTC", RENEW)
