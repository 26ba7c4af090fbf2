"""Port for the other replicas of the reconciler, as the leader uses it; a local reconciler has none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from reconciler.core.reasons import Unknown
from reconciler.core.record import Record
from reconciler.ports.router import RouteState


class RecordProgress(NamedTuple):
    """Progress of one service at a follower."""

    in_force: bool
    """True if the leader's record is in force at every Envoy and holder of the follower, and stays so."""
    waiting_for: str
    """The Envoys or holders that have not acknowledged it, for people."""


@dataclass(frozen=True, slots=True)
class Connected:
    """The replica (its IP address) of each connected Envoy and holder, by name."""

    envoys: Mapping[str, str] = field(default_factory=dict)
    holders: Mapping[str, str] = field(default_factory=dict)


class Replicas(Protocol):
    """Followers of a leader: they receive its records, and they can prevent sleep."""

    def share(self, service: str, record: Record | None, fence: bool, cause: str = "") -> RouteState | None:
        """Share the service's record; None if the service is gone.

        With `fence`, followers do not step the record. `cause` is the name of the event that led to its state. Returns
        the state of the route, which no follower has acknowledged yet; None if that does not change.
        """

    def unknown(self) -> Unknown | None:
        """Return why no service may be scaled to zero now, or None if it may."""


class SingleReplica:
    """A reconciler without other replicas."""

    def share(self, service: str, record: Record | None, fence: bool, cause: str = "") -> RouteState | None:
        return None

    def unknown(self) -> Unknown | None:
        return None
