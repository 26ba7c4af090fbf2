"""The clocks of a process, which tests replace, and a time that adapters share."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

FORGET_SECONDS = 300.0
"""Time after which a disconnected Envoy or holder no longer counts: nothing waits for it."""


@dataclass(frozen=True, slots=True)
class Clock:
    """A wall clock, for times that are compared with those of other machines, and a monotonic one, for time-outs."""

    now: Callable[[], float] = time.time
    """Seconds since the epoch."""
    ticks: Callable[[], float] = time.monotonic
    """Seconds since some moment; never set."""
