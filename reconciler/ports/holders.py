"""Port for holders, which keep connections waiting while a service wakes."""

from __future__ import annotations

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
    """Endpoints to connect waiting clients to; empty: they keep waiting."""
    diagnosis: Diagnosis | None
    """The reason why the wake is stalled."""
    reference: str = ""
    """Id of the present hold in refusals; empty while connections are not held."""


NONE: Mapping[str, int] = MappingProxyType({})
"""Shared by all services without a refused connection."""


@dataclass(frozen=True, slots=True)
class HoldStatus:
    """One service's connections in all holders."""

    service: str
    held: int | None
    """None while a holder is missing."""
    relayed: int | None
    acked_at: float | None = None
    """Time at which the last holder acknowledged the present order (seconds since the epoch); None until then."""
    released: int = 0
    refused: int = 0
    gone: int = 0
    held_since: float | None = None
    """Arrival of the first connection of the present or the last hold, in seconds since the epoch."""
    peer: str | None = None
    """Client of that connection: `ip` for HTTP, otherwise `ip:port`; until it is known, Envoy's end, `ip:port`."""
    via: str | None = None
    """Holder of that connection; in a cluster it has the name of its Envoy."""
    first_byte_at: float | None = None
    """Time of the first byte after the latest hold that ended in a release."""
    refused_by: Mapping[str, int] = field(default_factory=lambda: NONE)
    """Number of refused connections by reason."""


REASONS = frozenset(("max_held", "descriptors", "timeout", "removed", "draining", "unassigned"))
"""Reasons of holders for refusing a connection."""
OTHER = "other"
"""Replacement for every other reason, so that a holder cannot add labels to metrics."""


def added(parts: Iterable[Mapping[str, int]]) -> Mapping[str, int]:
    """Return the sums of several holders' counts by reason."""
    total: dict[str, int] = {}
    for part in parts:
        for reason, count in part.items():
            known = reason if reason in REASONS else OTHER
            total[known] = total.get(known, 0) + count
    return total or NONE


def wait_order(held: int | None, held_since: float | None) -> tuple[bool, float]:
    """Return a sort key: first the oldest wait that continues, then the latest wait that has ended."""
    since = held_since or 0.0
    return (False, since) if held else (True, -since)


Report = Callable[[HoldStatus], None]


class Holders(Protocol):
    """Holders of all services. Report every change of `HoldStatus`, but never from within `order`."""

    def order(self, service: str, order: HoldOrder | None) -> HoldStatus | None:
        """Replace the service's order; None removes it. The same value again costs nothing.

        Returns the status, where the order may be unacknowledged; None if a report follows, or after a removal.
        """
