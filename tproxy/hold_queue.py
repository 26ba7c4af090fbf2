"""The hold queue of one hold address: the connections waiting there, and totals.

First come, first served. `hold_timeout` is the same for all connections of a service, so the deque is ordered by age
and one timer per queue, for its oldest connection, is enough. A connection that leaves from the middle is only marked.
It is removed from the deque when it comes to the front, or when more than half of the deque is marked.

If the assignment waits for bytes, a connection whose client has sent nothing is *silent*: it is kept apart, is not
demand, and makes room for others. It joins the queue with its first byte, or once there are endpoints.
"""

from __future__ import annotations

import bisect
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from tproxy.io import tcp
from tproxy.protocols.http2 import HeldRequests
from tproxy.relay.relay import RelayedConnection
from tproxy.wire import HTTP, HTTP2, Assignment, Count, Go, Hold

UNASSIGNED_TIMEOUT_SECONDS = 10.0
"""Hold timeout of an address before the first message from the reconciler."""
UNASSIGNED_MAX_HELD = 1024
ASSIGNMENT_GRACE_SECONDS = 2.0
"""Hold timeout of an address without an assignment, after that message: Envoy may learn of a new service first."""

RefusalCause = Literal["max_held", "descriptors", "timeout", "removed", "draining", "unassigned"]


def unassigned(address: str, hold_timeout: float) -> Assignment:
    """Return the assignment of an address that belongs to no service, or not yet."""
    return Assignment(address, "", "tcp", Hold(), UNASSIGNED_MAX_HELD, hold_timeout)


@dataclass(slots=True, eq=False)
class HeldConnection:
    """One connection that waits. It is itself the callback of the loop, so that it needs no closure."""

    fd: int
    """-1 once the connection has left the queue."""
    queue: HoldQueue
    since: float
    """Monotonic time."""
    requests: HeldRequests | None = None
    """The requests that are held on it, if it is HTTP/2; None if one connection is one request."""
    header_size: int = 0
    """Bytes of Envoy's PROXY header, which the endpoint does not receive."""
    was_released: bool = False
    """True if it is held again, after an endpoint that ended it without an answer."""

    def __call__(self, events: int) -> None:
        self.queue.on_events(self, events)


@dataclass(slots=True, eq=False)
class HoldQueue:
    """The hold queue of one hold address."""

    address: str
    """In the spelling of the holder, which may differ from that of the assignment."""
    on_events: Callable[[HeldConnection, int], None]
    """Handles the events of a held connection: its client may have closed it, or has sent more."""
    assignment: Assignment
    waiting: deque[HeldConnection] = field(default_factory=deque)
    without_head: set[HeldConnection] = field(default_factory=set)
    """Connections whose head, which names the client, has not arrived; Envoy sends it at once."""
    silent: OrderedDict[HeldConnection, None] = field(default_factory=OrderedDict)
    """Connections that are not demand yet, oldest first. A dict would search its oldest behind all that have left."""
    held: int = 0
    relayed: set[RelayedConnection] = field(default_factory=set)
    released: int = 0
    gone: int = 0
    silent_ended: int = 0
    """Connections that ended while they were silent."""
    redialed: int = 0
    """Released connections that were held again, because the endpoint ended them without an answer."""
    refused: Counter[str] = field(default_factory=Counter)
    bytes_up: int = 0
    """Bytes from clients on relayed connections that ended."""
    bytes_down: int = 0
    """Bytes to clients on relayed connections that ended."""
    held_since: float | None = None
    peer: str | None = None
    client_known: bool = False
    """True if `peer` is the client, rather than the Envoy that it came through."""
    first_byte_at: float | None = None

    @property
    def is_assigned(self) -> bool:
        """True if the address belongs to a service."""
        return bool(self.assignment.service)

    @property
    def is_http(self) -> bool:
        return self.assignment.protocol in HTTP

    @property
    def may_share_connections(self) -> bool:
        """True if one connection may have several requests at a time."""
        return self.assignment.protocol in HTTP2

    @property
    def expects_head(self) -> bool:
        """True if connections begin with bytes that name the client: a PROXY header or an HTTP request."""
        return self.assignment.has_header or self.is_http

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Endpoints to release connections to; empty while they are held."""
        verdict = self.assignment.verdict
        return verdict.endpoints if isinstance(verdict, Go) else ()

    @property
    def is_full(self) -> bool:
        return self.held + len(self.silent) >= self.assignment.max_held

    @property
    def waits_for_bytes(self) -> bool:
        """True if a new connection is silent at first."""
        return self.assignment.waits_for_bytes and not self.endpoints

    @property
    def used(self) -> bool:
        """True if the address has ever had a connection, so that there is something to report."""
        return bool(self.held or self.relayed or self.released or self.gone or self.refused)

    def add(self, fd: int, since: float) -> HeldConnection:
        """Add a connection."""
        held = HeldConnection(fd, self, since)
        if self.waits_for_bytes:
            self.silent[held] = None
        else:
            self._append(held)
        return held

    def join(self, held: HeldConnection, now: float) -> None:
        """Add a silent connection to the queue; its wait begins."""
        del self.silent[held]
        held.since = now
        self._append(held)

    def _append(self, held: HeldConnection) -> None:
        if self.may_share_connections:
            held.requests = HeldRequests()
        if self.expects_head:
            self.without_head.add(held)
        self.waiting.append(held)
        self.held += 1
        if self.held == 1:
            self.update_oldest(held)

    def add_again(self, held: HeldConnection, fd: int) -> None:
        """Add a connection that was removed, at the place that its age gives it."""
        held.fd = fd
        bisect.insort(self.waiting, held, key=lambda one: one.since)
        self.held += 1
        if held is self.waiting[0]:
            self.update_oldest(held)

    def remove(self, held: HeldConnection) -> int:
        """Remove a connection and return its descriptor, which is the caller's."""
        fd, held.fd = held.fd, -1
        if held in self.silent:
            del self.silent[held]
            return fd
        self.without_head.discard(held)
        self.held -= 1
        waiting = self.waiting
        while waiting and waiting[0].fd < 0:
            waiting.popleft()
        if len(waiting) > 2 * self.held + 64:
            self.waiting = deque(one for one in waiting if one.fd >= 0)
        return fd

    def oldest(self) -> HeldConnection | None:
        """Return the connection that has waited longest."""
        return self.waiting[0] if self.waiting else None

    def oldest_silent(self) -> HeldConnection | None:
        """Return the connection that has been silent longest."""
        return next(iter(self.silent), None)

    def next(self) -> HeldConnection | None:
        """Return the connection that has waited longest of those that may be released."""
        if not self.without_head:
            return self.oldest()
        return next((held for held in self.waiting if held.fd >= 0 and held not in self.without_head), None)

    def count(self) -> Count:
        """Return all counts, for the reconciler."""
        if self.waiting:
            self.update_oldest(self.waiting[0])
        return Count(
            address=self.address,
            held=self.held,
            relayed=len(self.relayed),
            released=self.released,
            refused=self.refused.total(),
            gone=self.gone,
            held_since=self.held_since,
            peer=self.peer,
            first_byte_at=self.first_byte_at,
            refused_by=dict(self.refused),
        )

    def update_oldest(self, held: HeldConnection) -> None:
        """Record since when the oldest connection waits, and its client as far as it is known."""
        since = time.time() - (time.monotonic() - held.since)
        is_new = self.held_since is None or abs(since - self.held_since) >= 1e-3
        if is_new:
            self.held_since, self.client_known = since, False
        needs_client = self.expects_head and not self.client_known
        if needs_client and (client := tcp.peek_client(held.fd, self.assignment.has_header)):
            self.peer, self.client_known = client, True
        elif is_new or self.peer is None:
            self.peer = tcp.peer_address(held.fd) or self.peer

    def refusal_reason(self, cause: RefusalCause, waited_seconds: float = 0.0, *, was_released: bool = False) -> str:
        """Return the reason that a refused client receives; `was_released` is that of its connection."""
        assignment = self.assignment
        name = assignment.service or self.address
        reason = f": {assignment.reason}" if assignment.reason else ""
        if assignment.reference:
            reason += f" (reference {assignment.reference})"
        match cause:
            case "max_held":
                held = "1 connection is" if assignment.max_held == 1 else f"{assignment.max_held} connections are"
                return f"{name} is starting, and {held} already held (maxHeld){reason}"
            case "descriptors":
                return f"{name} is starting, and the holder has no file descriptor for another connection{reason}"
            case "timeout" if was_released and self.endpoints:
                waited = f"{waited_seconds:.1f} s (holdTimeout)"
                return f"{name} accepts connections, but ended this one without an answer for {waited}{reason}"
            case "timeout":
                return f"{name} did not start within {waited_seconds:.1f} s (holdTimeout){reason}"
            case "removed":
                return f"{name} is no longer served{reason}"
            case "draining":
                return f"{name} had not started after {waited_seconds:.1f} s, when the holder shut down{reason}"
            case "unassigned":
                return f"no service has the hold address {self.address}"
