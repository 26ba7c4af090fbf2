"""Wakes that served nothing, and the idle time that grows with them. Pure.

With `idle.by: bytes`, a sleep closes open connections that are silent. A client that reconnects by itself, such as a
connection pool, wakes the service again at once and sends nothing: the service would start and stop forever. Each
such wake in a row doubles the idle time, up to `LONGEST_SECONDS`. The first wake that serves something ends the row.

The row is not persisted: after a restart of the reconciler it begins again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from reconciler.core.events import DemandSeen
from reconciler.core.reasons import Blocker, Reason
from reconciler.core.record import Record, State
from reconciler.core.spec import Spec, UsageUnit
from reconciler.core.text import pluralize
from reconciler.core.traffic import PROXY_HEADER_BYTES, ServiceUsage

RETURN_SECONDS = 10.0
"""Delay within which a client that wakes a service is one whose connection the sleep has closed."""
GREETING_SECONDS = 5.0
"""Time after a wake in which bytes may be those of reconnecting: greetings, authentication, and settings."""
LONGEST_SECONDS = 3600.0
MAX_DOUBLINGS = 20


@dataclass(frozen=True, slots=True)
class UnservedWakes:
    """The wakes in a row that served nothing, and what is known of the present one."""

    in_a_row: int = 0
    cut_at: float | None = None
    """Start of the present sleep, in seconds since the epoch, if it closed open connections."""
    is_return: bool = False
    """True if the present wake followed such a sleep at once, and has served nothing so far."""
    awake_at: float | None = None
    """Time at which the present wake ended; None before."""

    def stepped(self, before: Record, after: Record, event: str, usage: ServiceUsage | None) -> UnservedWakes:
        """Return the successor after a change of state by the named event, for a service that is idle by bytes."""
        match before.state, after.state:
            case State.Draining, State.ScaledToZero:
                was_cut = usage is not None and usage.open > 0
                in_a_row = self.in_a_row + 1 if self.is_return and was_cut else 0
                return UnservedWakes(in_a_row, after.since if was_cut else None)
            case State.ScaledToZero, State.Waking:
                gap = None if self.cut_at is None else after.since - self.cut_at
                is_return = event == DemandSeen.__name__ and gap is not None and gap <= RETURN_SECONDS
                return UnservedWakes(self.in_a_row if is_return else 0, is_return=is_return)
            case State.Waking, State.Active:
                return replace(self, awake_at=self.awake_at or after.since)
            case _, State.ScaledToZero:
                return NONE
        return self

    def used(self, usage: ServiceUsage) -> UnservedWakes:
        """Return the successor after a sample: bytes after the greeting mean that the wake serves something."""
        has_bytes = usage.moved > PROXY_HEADER_BYTES * usage.arrived
        if self.awake_at is None or not has_bytes or usage.window_start < self.awake_at + GREETING_SECONDS:
            return self
        return NONE

    def effective(self, spec: Spec) -> Spec:
        """Return a spec with the grown idle time."""
        if not self.in_a_row or spec.idle_by is not UsageUnit.BYTES:
            return spec
        grown = spec.idle_after * (1 << min(self.in_a_row, MAX_DOUBLINGS))
        return replace(spec, idle_after=max(spec.idle_after, min(grown, LONGEST_SECONDS)))

    def reason(self, spec: Spec) -> Blocker | None:
        """Return why the idle time is longer than configured; None if it is not."""
        effective = self.effective(spec)
        if effective is spec:
            return None
        what = f"{pluralize(self.in_a_row, 'wake')} in a row served nothing: clients return as soon as a sleep closes"
        times = f"the idle time is {effective.idle_after:g} s instead of {spec.idle_after:g} s"
        return Blocker(Reason.WAKES_UNSERVED, f"{what} their connections; {times}")


NONE = UnservedWakes()
