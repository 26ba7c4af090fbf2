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
    """What one service has come to at a follower."""

    in_force: bool
    """Whether the leader's word is in force, at all of the follower's Envoys and holders, and stays so."""
    waiting_for: str
    """What it waits for, for people."""


@dataclass(frozen=True, slots=True)
class Connected:
    """By name, to which replica (its IP address) each is connected."""

    envoys: Mapping[str, str] = field(default_factory=dict)
    holders: Mapping[str, str] = field(default_factory=dict)


class Replicas(Protocol):
    """Tells followers the leader's records, and knows what stands against putting anything to sleep."""

    def share(self, service: str, record: Record | None, fence: bool, cause: str = "") -> RouteState | None:
        """This is the service's record from now on; None: it is no more. `fence`: followers do not step it. `cause`
        names the event that brought its state about.

        The route's state as it is by that, since nobody has acknowledged it yet; None when that changes nothing.
        """

    def unknown(self) -> Unknown | None:
        """Why nothing may be put to sleep now; None when it may."""


class SingleReplica:
    """No other replica."""

    def share(self, service: str, record: Record | None, fence: bool, cause: str = "") -> RouteState | None:
        return None

    def unknown(self) -> Unknown | None:
        return None
