"""The clocks of a process, which tests replace, the port for deadlines, and a time that adapters share."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from reconciler.plan import Deadline

FORGET_SECONDS = 300.0
"""Time after which a disconnected Envoy or holder no longer counts: nothing waits for it."""


@dataclass(frozen=True, slots=True)
class Clock:
    """A wall clock, for times that are compared with those of other machines, and a monotonic one, for time-outs."""

    now: Callable[[], float] = time.time
    """Seconds since the epoch."""
    ticks: Callable[[], float] = time.monotonic
    """Seconds since some moment; never set."""


class Alarm(Protocol):
    """Alarm that calls back with the service and its deadline once the deadline has passed, perhaps late."""

    def arm(self, service: str, deadline: Deadline | None) -> None:
        """Replace the service's deadline; None disarms it."""
