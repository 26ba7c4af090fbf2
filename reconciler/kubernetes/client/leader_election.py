"""Leader election over one Lease. Sans-IO: decides the next call and interprets its result.

No wall clock is trusted. A Lease has expired once this candidate has seen it unchanged for its duration. A term lasts
from an accepted write until the duration, less a margin, after that write was *sent*. The next leader therefore starts
at least a margin after the previous one stopped, even if processes froze or messages were late or lost. `now` is
CLOCK_BOOTTIME in seconds. An error never ends a term early and never extends it.

The Lease also contains the leader's address and the reserved indexes of hold addresses. Indexes are reserved in blocks,
written before they are used, so that none is used twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

ADDRESS = "zenvoy.dev/address"
NEXT_INDEX = "zenvoy.dev/next-index"
UNINSTALLER = "zenvoy uninstall"
"""A holder that is not a controller: while it holds the Lease, no running controller undoes the uninstallation."""
FIRST_INDEX = 1
SPARE_INDEXES = 64
"""Number of indexes reserved beyond the expected demand; up to this many may be lost in a crash."""


@dataclass(frozen=True, slots=True)
class LeaseTiming:
    """Timing of the election, in seconds."""

    duration: float = 15.0
    """Duration of the Lease."""
    margin: float = 5.0
    """Time by which the leader stops early, so that its last writes arrive before another candidate leads."""
    every: float = 2.0
    """Interval of the leader's renewals and of the followers' reads."""


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """A Lease as the API server stores it; `raw` is the whole object."""

    version: str
    holder: str
    duration: float
    transitions: int
    address: str | None
    next_index: int
    raw: Mapping[str, Any]


def parse_lease(raw: Mapping[str, Any]) -> LeaseRecord:
    """Parse a Lease; a missing or invalid field has its default."""
    meta, spec = raw["metadata"], raw.get("spec") or {}
    notes = meta.get("annotations") or {}
    index = str(notes.get(NEXT_INDEX, ""))
    return LeaseRecord(
        version=meta["resourceVersion"],
        holder=spec.get("holderIdentity") or "",
        duration=float(spec.get("leaseDurationSeconds") or 0),
        transitions=int(spec.get("leaseTransitions") or 0),
        address=notes.get(ADDRESS) or None,
        next_index=int(index) if index.isdecimal() else FIRST_INDEX,
        raw=raw,
    )


@dataclass(frozen=True, slots=True)
class ReadLease:
    """Read the Lease."""


@dataclass(frozen=True, slots=True)
class WriteLease:
    """Replace the Lease if it still has the version in `over`, or create it if `over` is None."""

    holder: str
    transitions: int
    acquires: bool
    first_index: int
    next_index: int
    """Reserves the indexes in [first, next)."""
    over: LeaseRecord | None


class LeaderElection:
    """One candidate, named `identity`.

    `wanted` returns the number of indexes that may soon be used. `unused` returns an index above all that records use,
    in case the Lease was deleted.
    """

    def __init__(
        self,
        identity: str,
        timing: LeaseTiming,
        wanted: Callable[[], int] = lambda: 0,
        unused: Callable[[], int] = lambda: FIRST_INDEX,
    ) -> None:
        self.identity, self.timing, self._wanted, self._unused = identity, timing, wanted, unused
        self.known: LeaseRecord | None = None
        self.valid_until = 0.0
        self.since = 0.0
        """Start of the current or the last term."""
        self._unchanged_since = 0.0
        self._starts_after_uninstall = True
        """True while every Lease that was read belonged to an uninstallation: a later installation may lead."""
        self._must_read = True
        self._due = 0.0
        self._free: deque[range] = deque()
        self._highest = FIRST_INDEX
        """Highest reserved index that was ever seen."""

    def valid(self, now: float) -> bool:
        """Return whether this candidate leads at this moment."""
        return now < self.valid_until

    def leader(self) -> str | None:
        """Return the address of another leader, if it is known."""
        known = self.known
        return known.address if known and known.holder and known.holder != self.identity else None

    def due(self, now: float) -> float:
        """Return when to call `act` again."""
        return min(self._due, self.valid_until) if self.valid(now) else self._due

    def act(self, now: float) -> ReadLease | WriteLease | None:
        """Return the next call, or None. Report its result with one of the methods below."""
        if now < self._due:
            return None
        if self._must_read or not (self.valid(now) or self._may_acquire(now)):
            return ReadLease()
        return self._write(now)

    def renew_now(self) -> None:
        """Make the next call due now."""
        self._due = 0.0
        self._must_read = self._must_read or not self.valid_until

    def read(self, now: float, found: LeaseRecord | None) -> None:
        """Record the Lease that was read, or None if it does not exist."""
        if (found and found.version) != (self.known and self.known.version):
            self._unchanged_since = now
        if found is None or found.holder != UNINSTALLER:
            self._starts_after_uninstall = False
        self.known, self._must_read = found, False
        self._highest = max(self._highest, found.next_index if found else 0)
        if found is None or found.holder != self.identity:
            self._end_term()
        self._due = now if self.valid(now) or self._may_acquire(now) else now + self.timing.every

    def wrote(self, began: float, now: float, write: WriteLease, found: LeaseRecord) -> None:
        """Record that the write that was sent at `began` was accepted."""
        if not self.valid(now):
            self._free.clear()
            self.since = began
        if write.next_index > write.first_index:
            self._free.append(range(write.first_index, write.next_index))
        self._highest = max(self._highest, write.next_index)
        self.known, self._unchanged_since, self._must_read = found, now, False
        self._starts_after_uninstall = False  # an uninstallation after a term of this candidate concerns it
        self.valid_until = began + self.timing.duration - self.timing.margin
        self._due = now + self.timing.every if self.valid(now) else now

    def refused(self, now: float) -> None:
        """Record a conflict: another candidate wrote in between."""
        self._must_read, self._due = True, now

    def failed(self, now: float) -> None:
        """Record a failed call; a write may have taken effect."""
        self._must_read, self._due = True, now + self.timing.every / 2

    def release(self) -> WriteLease | None:
        """End the term now, and return the write that lets the next leader start at once."""
        known, reserved = self.known, list(self._free)
        self._end_term()
        if known is None or known.holder != self.identity:
            return None
        # If the remaining indexes are the last reserved ones, they can be returned.
        is_last = len(reserved) == 1 and reserved[0].stop == known.next_index
        index = reserved[0].start if is_last else known.next_index
        return WriteLease("", known.transitions, False, index, index, known)

    def next_index(self, now: float) -> int | None:
        """Return an index that was never assigned, or None if none is reserved."""
        if not self.valid(now) or not self._free:
            return None
        block = self._free.popleft()
        if len(block) > 1:
            self._free.appendleft(block[1:])
        if self.left() < SPARE_INDEXES / 2:
            self._due = 0.0  # the next renewal reserves more
        return block[0]

    def left(self) -> int:
        """Return the number of reserved indexes that are not assigned."""
        return sum(map(len, self._free))

    def _end_term(self) -> None:
        self.valid_until = 0.0
        self._free.clear()

    def _may_acquire(self, now: float) -> bool:
        known = self.known
        if known is None or known.holder in ("", self.identity):
            return True
        lasts = 0.0 if self._starts_after_uninstall else known.duration
        return now - self._unchanged_since >= max(self.timing.duration, lasts)

    def _write(self, now: float) -> WriteLease:
        known, leads = self.known, self.valid(now)
        first = max(self._highest, known.next_index if known else 0, 0 if leads else self._unused())
        lacking = self._wanted() + SPARE_INDEXES - (self.left() if leads else 0)
        # A renewal reserves a whole block or nothing, so that few indexes are lost in a crash.
        more = lacking if not leads or lacking > SPARE_INDEXES / 2 else 0
        transitions = (known.transitions if known else 0) + (0 if leads else 1)
        return WriteLease(self.identity, transitions, not leads, first, first + max(0, more), known)
