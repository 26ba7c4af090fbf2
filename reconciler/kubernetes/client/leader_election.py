"""Who leads, by one Lease that whoever leads renews: what to do next, and what an answer means. No I/O, no clock.

No wall clock is trusted, neither ours nor the holder's: a Lease has expired when *we* have seen it unchanged for as
long as it lasts. We lead from an accepted write until as long after the moment that we *sent* it, less a
margin; so whoever takes over does so a margin after the one before stopped believing in itself, whatever was frozen,
late or lost between.
`now` is CLOCK_BOOTTIME in seconds. An error never means that we do not lead before that time, nor that we do after it.

The Lease also says where the leader is, and up to where indexes for hold addresses were set aside: in blocks, written
before they are used, so that none is used twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

ADDRESS = "zenvoy.dev/address"
NEXT_INDEX = "zenvoy.dev/next-index"
UNINSTALLER = "zenvoy uninstall"
"""The holder that leads nothing, so that no controller that still runs undoes what was restored."""
FIRST_INDEX = 1
SPARE_INDEXES = 64
"""How many are set aside beyond those that are wanted; as many may be lost in a crash."""


@dataclass(frozen=True, slots=True)
class LeaseTiming:
    """Seconds."""

    duration: float = 15.0
    """How long a Lease lasts."""
    margin: float = 5.0
    """How much earlier its holder stops: what it sent before must have arrived by the time that another leads."""
    every: float = 2.0
    """How often it is renewed, and looked at by others."""


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """A Lease as the API server has it; `raw` is all of it."""

    version: str
    holder: str
    duration: float
    transitions: int
    address: str | None
    next_index: int
    raw: Mapping[str, Any]


def parse_lease(raw: Mapping[str, Any]) -> LeaseRecord:
    """Read one; what is missing or no number is as if it was never written."""
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
    """Get the Lease."""


@dataclass(frozen=True, slots=True)
class WriteLease:
    """Put this in place of the Lease, if that is still of the version that it names; without one, make it."""

    holder: str
    transitions: int
    acquires: bool
    first_index: int
    next_index: int
    """Indexes from the one up to, without, the other are set aside by it."""
    over: LeaseRecord | None


class LeaderElection:
    """One candidate; `identity` is its own. `wanted`: how many indexes it may soon use; `unused`: one from which on
    none is in use, as far as records tell, for when the Lease does not: it may have been deleted."""

    def __init__(
        self,
        identity: str,
        terms: LeaseTiming,
        wanted: Callable[[], int] = lambda: 0,
        unused: Callable[[], int] = lambda: FIRST_INDEX,
    ) -> None:
        self.identity, self.terms, self._wanted, self._unused = identity, terms, wanted, unused
        self.known: LeaseRecord | None = None
        self.valid_until = 0.0
        self.since = 0.0
        """When the reign that goes on, or went on last, began."""
        self._unchanged_since = 0.0
        self._looked = self._is_of_the_next = False
        """Whether we began when all was uninstalled already: that was not about us."""
        self._must_look = True
        self._due = 0.0
        self._free: deque[range] = deque()
        self._highest = FIRST_INDEX
        """The highest mark that we ever saw."""

    def valid(self, now: float) -> bool:
        """Whether we lead at this very moment."""
        return now < self.valid_until

    def leader(self) -> str | None:
        """Where the one that leads is, as far as is known, if it is not us."""
        known = self.known
        return known.address if known and known.holder and known.holder != self.identity else None

    def due(self, now: float) -> float:
        """When to ask `act` again."""
        return min(self._due, self.valid_until) if self.valid(now) else self._due

    def act(self, now: float) -> ReadLease | WriteLease | None:
        """What is to be done now; its outcome is told by one of the methods below."""
        if now < self._due:
            return None
        if self._must_look or not (self.valid(now) or self._free_to_take(now)):
            return ReadLease()
        return self._write(now)

    def renew_now(self) -> None:
        """There may be news."""
        self._due = 0.0
        self._must_look = self._must_look or not self.valid_until

    def read(self, now: float, found: LeaseRecord | None) -> None:
        """It is this, or there is none."""
        if (found and found.version) != (self.known and self.known.version):
            self._unchanged_since = now
        uninstalled = found is not None and found.holder == UNINSTALLER
        self._is_of_the_next = uninstalled and (self._is_of_the_next or not self._looked)
        self.known, self._must_look, self._looked = found, False, True
        self._highest = max(self._highest, found.next_index if found else 0)
        if found is None or found.holder != self.identity:
            self._lost()
        self._due = now if self.valid(now) or self._free_to_take(now) else now + self.terms.every

    def wrote(self, began: float, now: float, write: WriteLease, found: LeaseRecord) -> None:
        """The write that was sent at `began` is in force."""
        if not self.valid(now):
            self._free.clear()
            self.since = began
        if write.next_index > write.first_index:
            self._free.append(range(write.first_index, write.next_index))
        self._highest = max(self._highest, write.next_index)
        self.known, self._unchanged_since, self._must_look = found, now, False
        self._is_of_the_next = False  # an uninstall that comes after we led is about us
        self.valid_until = began + self.terms.duration - self.terms.margin
        self._due = now + self.terms.every if self.valid(now) else now

    def refused(self, now: float) -> None:
        """Somebody else wrote since we looked."""
        self._must_look, self._due = True, now

    def failed(self, now: float) -> None:
        """There was no answer, or none that says anything; a write may have taken effect."""
        self._must_look, self._due = True, now + self.terms.every / 2

    def release(self) -> WriteLease | None:
        """We lead no more, as of this moment; what to write for others to know at once."""
        unused = self._free[0].start if self._contiguous() else None
        self._lost()
        known = self.known
        if known is None or known.holder != self.identity:
            return None
        index = known.next_index if unused is None else unused
        return WriteLease("", known.transitions, False, index, index, known)

    def next_index(self, now: float) -> int | None:
        """One that was never given out; None when none is set aside."""
        if not self.valid(now) or not self._free:
            return None
        block = self._free.popleft()
        if len(block) > 1:
            self._free.appendleft(block[1:])
        if self.left() < SPARE_INDEXES / 2:
            self._due = 0.0  # the next renewal sets more aside
        return block[0]

    def left(self) -> int:
        """How many indexes are set aside, and not given out."""
        return sum(map(len, self._free))

    def _contiguous(self) -> bool:
        """Whether all that is left is at the end of what was set aside, so that it can be given back."""
        return bool(self._free and self.known and len(self._free) == 1 and self._free[0].stop == self.known.next_index)

    def _lost(self) -> None:
        self.valid_until = 0.0
        self._free.clear()

    def _free_to_take(self, now: float) -> bool:
        known = self.known
        if known is None or known.holder in ("", self.identity):
            return True
        lasts = 0.0 if self._is_of_the_next else known.duration
        return now - self._unchanged_since >= max(self.terms.duration, lasts)

    def _write(self, now: float) -> WriteLease:
        known, leads = self.known, self.valid(now)
        first = max(self._highest, known.next_index if known else 0, 0 if leads else self._unused())
        lacking = self._wanted() + SPARE_INDEXES - (self.left() if leads else 0)
        # Renewals set aside a whole block or nothing, so that few indexes are lost.
        more = lacking if not leads or lacking > SPARE_INDEXES / 2 else 0
        transitions = (known.transitions if known else 0) + (0 if leads else 1)
        return WriteLease(self.identity, transitions, not leads, first, first + max(0, more), known)
