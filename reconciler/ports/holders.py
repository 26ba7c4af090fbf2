"""The holders, which keep connections waiting while a service wakes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from reconciler.core.reasons import Diagnosis
from reconciler.core.spec import Spec


@dataclass(frozen=True, slots=True)
class HoldOrder:
    """Instructions to holders for the connections of one service."""

    spec: Spec
    address: str
    """The hold address, `ip:port`."""
    release_to: tuple[str, ...]
    """Endpoints to connect them to; empty: they wait."""
    diagnosis: Diagnosis | None
    """The reason why the wake is stalled, in full."""
    reference: str = ""
    """The id by which a refusal names the present hold; empty while connections are not held."""


NONE: Mapping[str, int] = MappingProxyType({})
"""One object for all services of which no connection was refused."""


@dataclass(frozen=True, slots=True)
class HoldStatus:
    """One service's connections in all holders."""

    service: str
    held: int | None
    """None while a holder is missing."""
    relayed: int | None
    acked_at: float | None = None
    """When the last holder had the present order in force (seconds since the epoch); None until then."""
    released: int = 0
    refused: int = 0
    gone: int = 0
    held_since: float | None = None
    """When the first of those that wait (or waited last) came, in seconds since the epoch."""
    peer: str | None = None
    """Its client, once known: `ip` for HTTP, otherwise `ip:port`; until then Envoy's end, `ip:port`."""
    via: str | None = None
    """The holder that it came to; in a cluster it has the name of the Envoy beside it."""
    first_byte_at: float | None = None
    """When the latest wait that ended well saw its first byte."""
    refused_by: Mapping[str, int] = field(default_factory=lambda: NONE)
    """Number of refused connections by reason."""


REASONS = frozenset(("max_held", "descriptors", "timeout", "removed", "draining", "unassigned"))
"""The reasons for which holders refuse a connection."""
OTHER = "other"
"""Stands for every other reason, so that a holder cannot add labels to metrics."""


def added(parts: Iterable[Mapping[str, int]]) -> Mapping[str, int]:
    """Return the reasons of several holders, added up."""
    told = [part for part in parts if part]
    if not told:
        return NONE
    total: Counter[str] = Counter()
    for part in told:
        for reason, count in part.items():
            total[reason if reason in REASONS else OTHER] += count
    return total


Report = Callable[[HoldStatus], None]


class Holders(Protocol):
    """Tells holders what to do. Reports every change of `HoldStatus`."""

    def order(self, service: str, order: HoldOrder | None) -> None:
        """Replace the service's order; None if the service is gone. The same value again costs nothing."""
