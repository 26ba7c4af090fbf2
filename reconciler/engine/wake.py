"""Duration of a wake and of its parts: signal, start, reachable, first byte.

Pure values; the times come from the holder (first held, first byte), the engine (decided) and the backend.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from reconciler.core.record import Transition


@dataclass(frozen=True, slots=True)
class Wake:
    """One wake. Times are seconds since the epoch; None until they are known."""

    decided_at: float
    held_since: float | None = None
    """Arrival of the first held connection; None without one, as after a command."""
    peer: str | None = None
    via: str | None = None
    """Holder of that connection."""
    reason: str = ""
    milestones: Mapping[str, float] = field(default_factory=dict)
    ready_at: float | None = None
    first_byte_at: float | None = None
    early: bool = False
    """True if it used an endpoint before the cluster called it ready."""
    saved_seconds: float | None = None
    """Time that this saved; None until the cluster calls the endpoint ready."""

    @property
    def began_at(self) -> float:
        return self.held_since or self.decided_at

    def parts(self) -> dict[str, float]:
        """Return the seconds of each completed part, by name, in order; their sum is `total()`."""
        moments = {"signal": self.decided_at}
        moments |= {name: at for name, at in self.milestones.items() if at >= self.decided_at}
        if not self.milestones and self.ready_at is not None:
            moments["ready"] = self.ready_at
        if self.first_byte_at is not None:
            moments["firstByte"] = self.first_byte_at
        parts, before = {}, self.began_at
        for name, at in moments.items():
            parts[name] = max(0.0, at - before)
            before = max(before, at)
        return parts

    def total(self) -> float | None:
        """Return the seconds from the first held connection to its first byte, or to readiness without one."""
        end = self.ready_at if self.held_since is None else self.first_byte_at
        return None if end is None else max(0.0, end - self.began_at)


class TransitionListener(Protocol):
    """A receiver of transitions and wakes."""

    def saw(self, transition: Transition) -> None:
        """Receive a transition."""

    def woke(self, service: str, wake: Wake) -> None:
        """Receive a wake that is over."""
