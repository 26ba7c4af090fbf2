"""The other replicas of the reconciler, as the one that leads sees them; one machine has none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from reconciler.core.reasons import Unknown
from reconciler.core.record import Record
from reconciler.ports.router import RouteState


@dataclass(frozen=True, slots=True)
class Standing:
    """Progress of one service at a follower."""

    in_force: bool
    """True if the leader's word is in force at every Envoy and holder of the follower, and stays so."""
    waiting_for: str
    """The Envoys or holders that are missing, for people."""


@dataclass(frozen=True, slots=True)
class Connected:
    """By name, to which replica (its IP address) each is connected."""

    envoys: Mapping[str, str] = field(default_factory=dict)
    holders: Mapping[str, str] = field(default_factory=dict)


class Replicas(Protocol):
    """Tells followers the leader's records, and knows what stands against putting anything to sleep."""

    def share(self, service: str, record: Record | None, fence: bool, cause: str = "") -> RouteState | None:
        """Share the service's record; None if the service is gone. `fence`: followers do not step it. `cause`
        names the event that brought its state about.

        The route's state as it is by that, since nobody has acknowledged it yet; None when that changes nothing.
        """

    def unknown(self) -> Unknown | None:
        """Return why no service may be scaled to zero now, or None if it may."""


class SingleReplica:
    """No other replica."""

    def share(self, service: str, record: Record | None, fence: bool, cause: str = "") -> RouteState | None:
        return None

    def unknown(self) -> Unknown | None:
        return None
