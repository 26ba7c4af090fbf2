"""Connections that wait at one hold address, and what is known of that address. No I/O here but to see who it is.

First come, first served: `hold_timeout` is one per service, so the deque is ordered by age, and one timer per park,
for its oldest connection, is enough. A connection that left from the middle is only marked; it is dropped from the
deque when it comes to the front, or when the marked ones become the majority.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from typing import Literal, Protocol

from tproxy import address
from tproxy.io import peek
from tproxy.protocols.held_requests import Calls
from tproxy.wire import HTTP, Assignment, Count, Go, Refuse

UNKNOWN_TIMEOUT_SECONDS = 10.0
"""How long a connection to an address waits that the reconciler has not spoken of yet."""
UNKNOWN_MAX_HELD = 1024

Cause = Literal["max_held", "descriptors", "timeout", "refused", "draining", "unknown"]


class Stirred(Protocol):
    """Told that the kernel reported something about a held connection: its client may be gone, or asks for more."""

    def __call__(self, held: Held, events: int, /) -> None: ...


class Held:
    """One connection that waits. Registered with the loop itself, as the callable, so that it costs no closure."""

    __slots__ = ("calls", "fd", "header", "park", "since")

    def __init__(self, fd: int, park: Park, since: float) -> None:
        self.fd = fd
        """-1 once it does not wait any more."""
        self.calls: Calls | None = None
        """The requests that wait on it; None where one connection is one request."""
        self.header = 0
        """Bytes of Envoy's that lie before those of its client, and are read away before it is handed on."""
        self.park = park
        self.since = since
        """By the monotonic clock."""

    def __call__(self, events: int) -> None:
        self.park.stirred(self, events)


class Park:
    """One hold address: who waits there, and totals."""

    __slots__ = (
        "address",
        "assignment",
        "coming",
        "family",
        "first_byte_at",
        "gone",
        "held",
        "held_since",
        "knows_client",
        "patience",
        "peer",
        "refused",
        "relayed",
        "relayed_bytes",
        "released",
        "stirred",
        "waiting",
    )

    def __init__(self, name: str, family: int, stirred: Stirred, assignment: Assignment | None = None) -> None:
        self.address = name
        self.family = family
        """Of the listening socket, which that of every connection is too."""
        self.stirred = stirred
        self.assignment = assignment
        """None while the reconciler has not spoken of this address, or does not any more."""
        self.patience = UNKNOWN_TIMEOUT_SECONDS
        """How long a connection waits while there is no assignment."""
        self.waiting: deque[Held] = deque()
        self.coming: set[Held] = set()
        """Of those, who has yet to say what tells its client: Envoy does so at once."""
        self.held = 0
        self.relayed = 0
        self.released = 0
        self.gone = 0
        self.refused: Counter[str] = Counter()
        self.relayed_bytes = [0, 0]
        """Of connections that ended: from the client, to the client."""
        self.held_since: float | None = None
        self.peer: str | None = None
        self.knows_client = False
        """Whether `peer` is the client, and not the Envoy that it came through."""
        self.first_byte_at: float | None = None

    @property
    def service(self) -> str:
        return self.assignment.service if self.assignment else ""

    @property
    def protocol(self) -> str:
        return self.assignment.protocol if self.assignment else "tcp"

    @property
    def has_header(self) -> bool:
        """Whether connections begin with a header that says whose they are."""
        return self.assignment is not None and self.assignment.has_header

    @property
    def tells_client(self) -> bool:
        """Whether something on a connection says who its client is."""
        return self.has_header or self.is_http

    @property
    def is_http(self) -> bool:
        return self.protocol in HTTP

    @property
    def hold_timeout(self) -> float:
        return self.assignment.hold_timeout if self.assignment else self.patience

    @property
    def max_held(self) -> int:
        return self.assignment.max_held if self.assignment else UNKNOWN_MAX_HELD

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Where to connect those who wait; empty: nowhere yet."""
        verdict = self.assignment.verdict if self.assignment else None
        return verdict.endpoints if isinstance(verdict, Go) else ()

    @property
    def touched(self) -> bool:
        """Whether it was ever connected to: only then is there anything to tell."""
        return bool(self.held or self.relayed or self.released or self.gone or self.refused)

    def refusal(self) -> Cause | None:
        """Why the verdict or a bound forbids one more; None: it may wait."""
        if self.assignment and isinstance(self.assignment.verdict, Refuse):
            return "refused"
        return "max_held" if self.held >= self.max_held else None

    def hold(self, fd: int, now: float) -> Held:
        """One more waits."""
        held = Held(fd, self, now)
        self.waiting.append(held)
        self.held += 1
        if self.held == 1:
            self.note(held)
        return held

    def leave(self, held: Held) -> int:
        """It waits no more: its descriptor, which is the caller's now."""
        fd, held.fd = held.fd, -1
        self.coming.discard(held)
        self.held -= 1
        waiting = self.waiting
        while waiting and waiting[0].fd < 0:
            waiting.popleft()
        if len(waiting) > 2 * self.held + 64:
            self.waiting = deque(one for one in waiting if one.fd >= 0)
        return fd

    def oldest(self) -> Held | None:
        """Who has waited longest."""
        return self.waiting[0] if self.waiting else None

    @property
    def releasable(self) -> int:
        """How many may be handed on: all that have come."""
        return self.held - len(self.coming)

    def next(self) -> Held | None:
        """Who has waited longest of those that may be handed on."""
        if not self.coming:
            return self.oldest()
        return next((held for held in self.waiting if held.fd >= 0 and held not in self.coming), None)

    def count(self) -> Count:
        """All of it, for the reconciler."""
        if self.waiting:
            self.note(self.waiting[0])
        return Count(
            address=self.address,
            held=self.held,
            relayed=self.relayed,
            released=self.released,
            refused=self.refused.total(),
            gone=self.gone,
            held_since=self.held_since,
            peer=self.peer,
            first_byte_at=self.first_byte_at,
            refused_by=dict(self.refused),
        )

    def note(self, held: Held) -> None:
        """This one has waited longest: since when, and who it is, as far as can be seen."""
        since = time.time() - (time.monotonic() - held.since)
        is_news = self.held_since is None or abs(since - self.held_since) >= 1e-3
        if is_news:
            self.held_since, self.knows_client = since, False
        asks = self.tells_client and not self.knows_client
        if asks and (sender := peek.sender(held.fd, self.has_header)):
            self.peer, self.knows_client = sender, True
        elif is_news or self.peer is None:
            self.peer = address.peer(held.fd, self.family) or self.peer


def explanation(park: Park, cause: Cause, waited: float) -> str:
    """What a refused client is told."""
    name = park.service or park.address
    why = park.assignment.reason if park.assignment else None
    verdict = park.assignment.verdict if park.assignment else None
    tail = (f": {why}" if why else "") + _reference(park)
    match cause:
        case "max_held":
            many = "1 connection waits" if park.max_held == 1 else f"{park.max_held} connections wait"
            return f"{name} is waking, and {many} for it already (maxHeld){tail}"
        case "descriptors":
            return f"{name} is waking, and the holder has no descriptor left for one more connection{tail}"
        case "timeout":
            return f"{name} did not wake within {waited:.1f} s (holdTimeout){tail}"
        case "refused":
            said = verdict.reason if isinstance(verdict, Refuse) else f"it is no longer served{tail}"
            return f"{name} is refused: {said}"
        case "draining":
            return f"{name} had not woken after {waited:.1f} s when the holder shut down{tail}"
        case "unknown":
            return f"no service is known at {park.address}"


def _reference(park: Park) -> str:
    reference = park.assignment.reference if park.assignment else ""
    return f" (reference {reference})" if reference else ""
