"""What a services file says, once it is known to be right.

Rule: plain immutable values; two that are equal mean that nothing changed.
"""

from __future__ import annotations

from dataclasses import dataclass

from reconciler.core.spec import Spec
from reconciler.local.processes import Program


@dataclass(frozen=True, slots=True)
class Entry:
    """One service: how it sleeps and wakes, and what runs."""

    spec: Spec
    program: Program


@dataclass(frozen=True, slots=True)
class ServicesFile:
    """A whole file. Durations are seconds."""

    listen_http: str | None
    """`ip:port` of the listener that all http and h2c services share."""
    listen_tls: str | None
    """`ip:port` of the listener that all tls services share."""
    sample_interval: float
    services: tuple[Entry, ...]
