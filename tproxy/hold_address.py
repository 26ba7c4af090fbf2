"""One hold address at work: the I/O around a `HoldQueue`.

A held connection leaves in one of three ways: released over a dial that succeeded, refused (also by timeout), or gone
because its client disconnected. A released connection is held again if its endpoint ends it without an answer.
"""

from __future__ import annotations

import os
import select
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial

import structlog

from tproxy.control.keeper_client import KeeperClient
from tproxy.control.stream import HoldReporter
from tproxy.dial.dialer import Dialer, DialLimiter
from tproxy.hold_queue import (
    ASSIGNMENT_GRACE_SECONDS,
    UNASSIGNED_TIMEOUT_SECONDS,
    HeldConnection,
    HoldQueue,
    RefusalCause,
    unassigned,
)
from tproxy.io import tcp
from tproxy.io.descriptors import Budget
from tproxy.io.loop import Loop, Timer
from tproxy.io.refuser import Refuser
from tproxy.protocols.client_address import NONE
from tproxy.protocols.http2 import HeldRequests
from tproxy.relay.relay import Attempt, Relay, RelayedConnection
from tproxy.wire import Assignment

log = structlog.get_logger("tproxy")

_PEEK_BYTES = 131_072
"""Bytes of an HTTP/2 connection that are examined. Without a response, no peer sends more than 64 KiB beyond
headers."""
_NEARLY_SECONDS, _NEARLY_SHARE = 1.0, 0.1
"""A request that has waited for holdTimeout but for this counts as timed out: holding it again would double its
wait."""
_SILENT_INTEREST = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
_RETRY_AFTER_SECONDS: dict[RefusalCause, int] = {"timeout": 5, "removed": 30, "unassigned": 30}


@dataclass(frozen=True, slots=True)
class HolderContext:
    """The components that all hold addresses of a holder share."""

    loop: Loop
    budget: Budget
    limiter: DialLimiter
    relay: Relay
    refuser: Refuser
    reporter: HoldReporter
    keeper: KeeperClient
    addresses: dict[str, HoldAddress]
    """By address, those that have ever had a connection; the others cost no more than their assignment."""
    refused: Counter[str]


class HoldAddress:
    """One hold address at work."""

    __slots__ = ("_context", "_dialer", "_timeout", "queue")

    def __init__(self, context: HolderContext, address: str, assignment: Assignment) -> None:
        self._context = context
        self.queue = HoldQueue(address, self._on_held_events, assignment)
        self._dialer = Dialer(context.limiter, self, self.queue.endpoints)
        self._timeout: Timer | None = None

    def accept(self, fd: int) -> None:
        """Hold a connection that was accepted and counted in the budget, or refuse it."""
        queue, budget = self.queue, self._context.budget
        if (queue.is_full or not budget.admits_held()) and (silent := queue.oldest_silent()):
            self._end_silent(silent)
        if queue.is_full:
            self._refuse(fd, "max_held")
        elif not budget.admits_held():
            self._refuse(fd, "descriptors")
        else:
            self._hold(fd, time.monotonic())

    def adopt(self, fd: int, since: float) -> None:
        """Hold a connection of an earlier holder, counted in the budget; that holder has already checked the limits."""
        waited = time.monotonic() - since
        timeout = max(self.queue.assignment.hold_timeout, waited + UNASSIGNED_TIMEOUT_SECONDS)
        self.queue.assignment = unassigned(self.queue.address, timeout)
        self._hold(fd, since)

    def _hold(self, fd: int, since: float) -> None:
        queue = self.queue
        held = queue.add(fd, since)
        if self._watch(held):
            self._arm_timeout()
            if held in queue.silent:
                return
            self._context.keeper.keep(held)
            self._context.reporter.report(queue, at_once=queue.held == 1 and not queue.endpoints)
            self._dialer.pump()

    def _hold_again(self, held: HeldConnection, relayed: RelayedConnection, fd: int) -> None:
        """Hold a released connection that the endpoint ended without an answer."""
        queue, context = self.queue, self._context
        queue.relayed.discard(relayed)
        queue.redialed += 1
        context.budget.used -= 1
        if not self._dialer.pace.is_losing:
            log.warning(
                "the endpoint ends connections without an answer; dialing again until it answers",
                service=queue.assignment.service,
                endpoints=queue.endpoints,
            )
        queue.add_again(held, fd)
        if self._watch(held):
            self._rearm_timeout()
            context.keeper.keep(held)
            context.reporter.report(queue)
            self._dialer.lost()

    def _watch(self, held: HeldConnection) -> bool:
        """Wait for events of a held connection, and return whether that is possible."""
        try:
            interest = _SILENT_INTEREST if held in self.queue.silent else self._interest()
            self._context.loop.register(held.fd, interest, held)
        except OSError:  # epoll_ctl(2): out of memory or watches
            self._refuse(self.queue.remove(held), "descriptors")
            return False
        return True

    def _join(self, held: HeldConnection) -> None:
        """Count a silent connection as held: it has sent a byte, or there are endpoints."""
        queue, context = self.queue, self._context
        queue.join(held, time.monotonic())
        context.loop.modify(held.fd, self._interest())
        context.keeper.keep(held)
        self._rearm_timeout()
        context.reporter.report(queue, at_once=queue.held == 1 and not queue.endpoints)

    def _on_silent_events(self, held: HeldConnection, events: int) -> None:
        """Join the queue with the first byte after the header, if any; the end of the connection may follow it."""
        header = tcp.peek_header(held.fd) if self.queue.assignment.has_header else NONE
        if header is not None and len(tcp.peek(held.fd, header.size + 1)) > header.size:
            self._join(held)
            self._dialer.pump()
        elif events & ~select.EPOLLIN:
            self._end_silent(held)

    def _end_silent(self, held: HeldConnection) -> None:
        """Close a connection that woke nothing, so that it is neither gone nor refused."""
        self._context.loop.unregister(held.fd)
        os.close(self.queue.remove(held))
        self._context.budget.used -= 1
        self.queue.silent_ended += 1

    def assign(self, assignment: Assignment) -> None:
        """Put an assignment in force."""
        queue, before = self.queue, self.queue.assignment
        if assignment == before:
            return
        endpoints, was_assigned = queue.endpoints, queue.is_assigned
        if was_assigned and before.service != assignment.service:
            self.refuse_all("removed")
        queue.assignment = assignment
        if (before.protocol, before.has_header) != (assignment.protocol, assignment.has_header):
            self._reinterpret(was_assigned)
        if before.hold_timeout != assignment.hold_timeout:
            self._rearm_timeout()
        if queue.endpoints != endpoints:
            self._dialer.set_endpoints(queue.endpoints)
        if not was_assigned:
            self._context.reporter.report(queue)
        if not queue.waits_for_bytes:
            for held in list(queue.silent):
                self._join(held)
        self._dialer.pump()

    def remove(self, cause: RefusalCause) -> None:
        """Refuse all held connections of an address that is no longer used. Relayed connections continue."""
        self.refuse_all(cause)
        self.queue.assignment = unassigned(self.queue.address, ASSIGNMENT_GRACE_SECONDS)
        self._rearm_timeout()
        self._dialer.set_endpoints(())
        self._context.reporter.report(self.queue)
        self._forget_if_unused()

    def refuse_all(self, cause: RefusalCause) -> None:
        """Refuse all held connections, and close the silent ones."""
        for silent in list(self.queue.silent):
            self._end_silent(silent)
        while held := self.queue.oldest():
            last = held.requests.last if held.requests else None
            self._refuse_held(held, cause, last)
        self._dialer.pump()

    def dials_wanted(self) -> int:
        """Return the number of connections that may be released."""
        return self.queue.held - len(self.queue.without_head)

    def on_connected(self, fd: int) -> None:
        """Release the oldest connection over a dial that succeeded."""
        queue, context = self.queue, self._context
        while (held := queue.next()) and self._is_gone(held.fd):
            self._drop(held)
        if held is None:
            os.close(fd)
            context.budget.used -= 1
            return
        if queue.expects_head and not queue.client_known:
            queue.update_oldest(held)
        deadline = held.since + queue.assignment.hold_timeout
        attempt = Attempt(held.header_size, deadline, partial(self._hold_again, held))
        try:
            relayed = context.relay.start(self._leave(held), fd, self, attempt)
        except OSError:
            # The client disconnected within the last microseconds; both descriptors are closed.
            context.budget.used -= 2
            queue.gone += 1
        else:
            queue.relayed.add(relayed)
            queue.released += not held.was_released
            held.was_released = True
        context.reporter.report(queue)

    def on_first_byte(self) -> None:
        """Record the first byte that an endpoint sent after the latest wait."""
        queue = self.queue
        self._dialer.answered()
        if queue.first_byte_at is None or queue.first_byte_at < (queue.held_since or 0):
            queue.first_byte_at = time.time()
            self._context.reporter.report(queue)

    def on_relay_ended(self, relayed: RelayedConnection) -> None:
        """Count a relayed connection that has ended."""
        queue, context = self.queue, self._context
        queue.relayed.discard(relayed)
        queue.bytes_up += relayed.bytes_up
        queue.bytes_down += relayed.bytes_down
        context.budget.used -= 2
        context.reporter.report(queue)
        self._forget_if_unused()
        context.limiter.resume()

    def _forget_if_unused(self) -> None:
        if not (self.queue.is_assigned or self.queue.held or self.queue.silent or self.queue.relayed):
            self._context.addresses.pop(self.queue.address, None)

    def _reinterpret(self, was_assigned: bool) -> None:
        """Apply a new protocol to connections that were accepted under another one, or before any."""
        queue = self.queue
        connections = [held for held in queue.waiting if held.fd >= 0]
        if queue.expects_head and not was_assigned:
            queue.without_head.update(connections)
        for held in connections:
            held.requests = HeldRequests() if queue.may_share_connections else None
            if not queue.assignment.has_header:
                self._consume_header(held)
            self._context.loop.modify(held.fd, self._interest())

    def _interest(self) -> int:
        """Return the events to wait for.

        A TCP client that ended its own direction may still expect a response; an HTTP client does not. Data stays in
        the kernel. Its arrival is reported only where it names the client or contains requests.
        """
        ends = select.EPOLLRDHUP if self.queue.is_http else 0
        needs_data = self.queue.expects_head or self.queue.without_head
        return ends | select.EPOLLIN | select.EPOLLET if needs_data else ends

    def _is_gone(self, fd: int) -> bool:
        """Return whether the client has disconnected; that event may come later in the same batch."""
        state = tcp.state(fd)
        return state != tcp.ESTABLISHED if self.queue.is_http else state == tcp.CLOSED

    def _on_held_events(self, held: HeldConnection, events: int) -> None:
        if self.queue.silent and held in self.queue.silent:
            self._on_silent_events(held, events)
            return
        if events & ~select.EPOLLIN:
            self._drop(held)
        elif held not in self.queue.without_head or self._head_arrived(held):
            self._on_data(held)
        else:
            return
        self._dialer.pump()

    def _on_data(self, held: HeldConnection) -> None:
        if held is self.queue.oldest() and not self.queue.client_known:
            self._context.reporter.report(self.queue)
        if held.requests and held.requests.update(tcp.peek(held.fd, _PEEK_BYTES), time.monotonic()):
            self.queue.gone += 1
            self._return_requests(held)

    def _head_arrived(self, held: HeldConnection) -> bool:
        """Return whether the first bytes of a connection can be examined, and find its PROXY header.

        A header before a request, which it cannot be confused with, comes from an Envoy that has another protocol for
        the service.
        """
        header = tcp.peek_header(held.fd)
        if header:
            self.queue.without_head.remove(held)
            held.header_size = header.size
            if not self.queue.assignment.has_header:
                self._consume_header(held)
        elif tcp.state(held.fd) != tcp.ESTABLISHED:
            self._drop(held)  # the client sends nothing at all
        return header is not None

    def _consume_header(self, held: HeldConnection) -> None:
        """Read the PROXY header, which the endpoint does not expect."""
        if held.header_size:
            os.read(held.fd, held.header_size)
            held.header_size = 0

    def _return_requests(self, held: HeldConnection) -> None:
        """Send GOAWAY without a response, so that Envoy repeats a request that may be on its way."""
        self._context.refuser.refuse(self._leave(held), "h2c", last=0)
        self._context.reporter.report(self.queue)

    def _drop(self, held: HeldConnection) -> None:
        os.close(self._leave(held))
        self._context.budget.used -= 1
        self.queue.gone += 1
        self._context.reporter.report(self.queue)

    def _leave(self, held: HeldConnection) -> int:
        self._context.loop.unregister(held.fd)
        self._context.keeper.drop(held.fd)
        return self.queue.remove(held)

    def _refuse_held(self, held: HeldConnection, cause: RefusalCause, last: int | None) -> None:
        """Refuse a held connection; with HTTP/2, its requests up to the stream `last`."""
        waited = time.monotonic() - held.since
        reason = self.queue.refusal_reason(cause, waited, was_released=held.was_released)
        self._refuse(self._leave(held), cause, reason, last)

    def _refuse(self, fd: int, cause: RefusalCause, reason: str = "", last: int | None = None) -> None:
        """Refuse a connection that is not held; the default of `reason` is that of one that was never held."""
        queue = self.queue
        refused = queue.refused if queue.is_assigned else self._context.refused
        refused[cause] += 1
        retry_after = _RETRY_AFTER_SECONDS.get(cause, 1)
        reason = reason or queue.refusal_reason(cause)
        self._context.refuser.refuse(fd, queue.assignment.protocol, reason, retry_after, last)
        self._context.reporter.report(queue)

    def _time_out(self, held: HeldConnection) -> None:
        """Refuse a connection whose time is over; requests on it that came later are held again on another one."""
        now, limit = time.monotonic(), self.queue.assignment.hold_timeout
        nearly = limit - min(_NEARLY_SECONDS, _NEARLY_SHARE * limit)
        last = held.requests.last_since(now - nearly) if held.requests else None
        if last == 0:
            self._return_requests(held)
        else:
            cause: RefusalCause = "timeout" if self.queue.is_assigned else "unassigned"
            self._refuse_held(held, cause, last)

    def _arm_timeout(self) -> None:
        oldest = [held.since for held in (self.queue.oldest(), self.queue.oldest_silent()) if held]
        if self._timeout is None and oldest:
            at = min(oldest) + self.queue.assignment.hold_timeout
            self._timeout = self._context.loop.call_at(at, self._on_timeout)

    def _rearm_timeout(self) -> None:
        if self._timeout is not None:
            self._timeout.cancel()
            self._timeout = None
        self._arm_timeout()

    def _on_timeout(self) -> None:
        self._timeout = None
        before = time.monotonic() - self.queue.assignment.hold_timeout
        while (oldest := self.queue.oldest()) and oldest.since <= before:
            self._time_out(oldest)
        while (silent := self.queue.oldest_silent()) and silent.since <= before:
            self._end_silent(silent)
        self._arm_timeout()
        self._dialer.pump()
        self._forget_if_unused()
