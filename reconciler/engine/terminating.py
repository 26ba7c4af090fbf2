"""Endpoints that terminate because the leader scaled the service to zero. Pure; only followers need it.

Whoever scales to zero knows at once that its endpoints are none any more. A follower learns it from the leader, while
its own view of the cluster still shows them, and may not connect anybody to one of them.
"""

from __future__ import annotations

from dataclasses import dataclass

NONE: frozenset[str] = frozenset()
"""One object for all services, of which most have no endpoint: each empty set would take 216 bytes."""


@dataclass(slots=True)
class TerminatingEndpoints:
    """One service's. What is seen after zero was seen, and was not there before, is new."""

    endpoints: frozenset[str] = NONE
    awaits_zero: bool = False
    blocks: bool = False
    """True if a terminating endpoint is never used; otherwise it is used if there is no other."""

    def begin(self, seen: tuple[str, ...], zeroed: bool) -> None:
        """The leader's record is ScaledToZero; `zeroed`: it has seen zero."""
        if not self.blocks:
            self.endpoints = frozenset(seen) or NONE
        self.blocks, self.awaits_zero = True, not zeroed

    def over(self) -> None:
        """The leader believes in what is there, or there is no leader who could end it."""
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
