"""A listener of the engine that ignores every notification."""

from __future__ import annotations

from reconciler.core.record import Transition
from reconciler.engine.service import Wake


class NoListener:
    """A `TransitionListener` for tests that observe records only."""

    def saw(self, transition: Transition) -> None:
        """Ignore a transition."""

    def woke(self, service: str, wake: Wake) -> None:
        """Ignore a wake."""
