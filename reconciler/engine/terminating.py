"""Endpoints that are terminating because the leader scaled the service to zero. Pure; only followers need it.

The leader stops using the endpoints when it scales to zero. A follower learns of the scale from the leader while its
informers still show the endpoints; it must not connect a client to one of them.
"""

from __future__ import annotations

from dataclasses import dataclass

NONE: frozenset[str] = frozenset()
"""Shared by all services without endpoints: each empty set would take 216 bytes."""


@dataclass(slots=True)
class TerminatingEndpoints:
    """Terminating endpoints of one service. An endpoint that first appears after an observed zero is new."""

    endpoints: frozenset[str] = NONE
    awaits_zero: bool = False
    blocks: bool = False
    """True if a terminating endpoint is never used; otherwise it is used if there is no other."""

    def begin(self, seen: tuple[str, ...], zeroed: bool) -> None:
        """Apply a leader's ScaledToZero; `zeroed` is true if the leader observed zero replicas."""
        if not self.blocks:
            self.endpoints = frozenset(seen) or NONE
        self.blocks, self.awaits_zero = True, not zeroed

    def over(self) -> None:
        """End the block: the leader uses the endpoints, or no leader can stop them."""
        self.blocks = self.awaits_zero = False

    def saw(self, replicas: int | None, seen: tuple[str, ...]) -> None:
        """Apply the observed replicas and endpoints."""
        self.endpoints = (frozenset(seen) if self.awaits_zero else self.endpoints.intersection(seen)) or NONE
        self.awaits_zero = self.awaits_zero and replicas != 0

    def left(self, seen: tuple[str, ...]) -> tuple[str, ...]:
        """Return the endpoints that may be used."""
        if not self.endpoints:
            return seen
        left = tuple(endpoint for endpoint in seen if endpoint not in self.endpoints)
        return left if left or self.blocks else seen
