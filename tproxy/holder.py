"""The holder: passes accepted connections, and the assignments of the reconciler, to hold addresses.

Everything here runs in the loop's thread. The stream's thread calls `opened`, `received` and `closed` by way of
`Loop.call_soon_threadsafe`. The thread of the metrics only reads.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import structlog

from tproxy import address
from tproxy.control.keeper_client import KeeperClient
from tproxy.control.stream import HoldReporter, Link
from tproxy.dial.dialer import DialLimiter
from tproxy.hold_address import HoldAddress, HolderContext
from tproxy.hold_queue import (
    ASSIGNMENT_GRACE_SECONDS,
    UNASSIGNED_TIMEOUT_SECONDS,
    HeldConnection,
    HoldQueue,
    unassigned,
)
from tproxy.io import tcp
from tproxy.io.descriptors import Budget
from tproxy.io.loop import Loop
from tproxy.io.refuser import Refuser
from tproxy.redirect.self_check import SelfCheck
from tproxy.relay.relay import Relay
from tproxy.wire import Assignment, AssignmentUpdate, Go, HolderHello

log = structlog.get_logger("tproxy")

MAX_UNASSIGNED_ADDRESSES = 64
"""Addresses without an assignment at which connections are held; their number is the client's choice."""
DRAIN_POLL_SECONDS = 0.02
REFUSAL_SECONDS = 0.5
"""The time that clients have to read their refusals at the end of a drain."""


class Holder:
    """The hold addresses of one listening socket."""

    def __init__(
        self, loop: Loop, budget: Budget, hello: HolderHello, keeper_path: Path | None, keepalive_seconds: int
    ) -> None:
        self.loop = loop
        self.budget = budget
        self.addresses: dict[str, HoldAddress] = {}
        self.assignments: dict[str, Assignment] = {}
        self.refused: Counter[str] = Counter()
        """By cause, the refused connections that belong to no service."""
        self.is_informed = False
        """True once the reconciler has sent all assignments."""
        self.is_connected = False
        """True if the reconciler has sent a message on the current stream."""
        self.is_redirected: bool | None = None
        """Mode tproxy: True if rules redirect connections to the holder; None if that is not known."""
        self.self_check: SelfCheck | None = None
        """Mode tproxy: recognizes connections that the holder makes to itself."""
        self.relay = Relay(loop)
        self.refuser = Refuser(loop, budget)
        self.reporter = HoldReporter(loop, hello, self._queues)
        self.keeper = KeeperClient(loop, keeper_path, self._held_connections)
        limiter = DialLimiter(loop, budget, keepalive_seconds)
        self._context = HolderContext(
            loop, budget, limiter, self.relay, self.refuser, self.reporter, self.keeper, self.addresses, self.refused
        )

    def adopt(self) -> None:
        """Continue to hold the connections of an earlier holder that died. Must precede the first `accept`."""
        adopted = self.keeper.adopt()
        for fd, since in adopted:
            self.budget.used += 1
            self._address(tcp.local_address(fd)).adopt(fd, since)
        if adopted:
            log.warning("adopted connections of an earlier holder", held=len(adopted))

    def accept(self, fd: int) -> None:
        """Pass an accepted connection to its hold address."""
        if self.self_check is not None and self.self_check.takes(fd):
            return
        self.budget.used += 1
        try:
            name = tcp.local_address(fd)
        except OSError:  # reset before it was examined
            self.refuser.refuse(fd)
            return
        if name in self.assignments or not self.is_informed or self._may_be_assigned(name):
            self._address(name).accept(fd)
        else:
            self.refused["unassigned"] += 1
            self.refuser.refuse(fd)

    def set_redirected(self, redirected: bool) -> None:
        """Mode tproxy: report whether rules redirect connections to the holder, unless that is known."""
        if redirected is self.is_redirected:
            return
        if not redirected:
            log.warning("no rules redirect connections to the holder", remedy="zenvoy-tproxy rules --install")
        elif self.is_redirected is False:
            log.info("rules redirect connections to the holder again")
        self.is_redirected = redirected
        self.reporter.report_rules(redirected)

    def count_shed(self) -> None:
        """Count a connection that was reset because the process has no descriptor left."""
        self.refused["descriptors"] += 1

    def opened(self, link: Link) -> None:
        """Report everything over a new stream, whose other end may not answer."""
        self.reporter.connected(link)

    def received(self, link: Link, down: AssignmentUpdate) -> None:
        """Put a message of the reconciler in force."""
        if not self.is_connected:
            self.is_connected = True
            log.info("reconciler connected", assignments=len(down.assign))
        assigned = {address.canonical(one.address): one for one in down.assign}
        removed = {address.canonical(one) for one in down.remove} - assigned.keys()
        if down.full:
            removed = self.assignments.keys() - assigned.keys()
        for name in removed:
            self.assignments.pop(name, None)
            if name in self.addresses:
                self.addresses[name].remove("removed")
        for name, assignment in assigned.items():
            self._assign(name, assignment)
        if down.full and not self.is_informed:
            self.is_informed = True
            for without in [one for one in self.addresses.values() if not one.queue.is_assigned]:
                without.remove("unassigned")
        self.reporter.acknowledge(link, down.version)

    def closed(self, link: Link, error: str) -> None:
        """Continue with the last assignments after a stream has ended."""
        self.reporter.disconnected(link)
        if self.is_connected:
            self.is_connected = False
            log.warning("reconciler disconnected; continuing with the last known assignments", error=error)

    def drain(self, timeout_seconds: float, on_drained: Callable[[bool], None]) -> None:
        """Wait until no connection is held or relayed, for `timeout_seconds` at most; then refuse the held ones.

        Call `on_drained` with whether the drain completed in time.
        """
        log.info("draining", held=self.held, relayed=self.relayed, timeout=timeout_seconds)
        deadline = time.monotonic() + timeout_seconds

        def poll() -> None:
            if not (self.held or self.relayed or self.refuser.lingering):
                on_drained(True)
            elif (now := time.monotonic()) < deadline:
                self.loop.call_at(min(deadline, now + DRAIN_POLL_SECONDS), poll)
            else:
                log.warning("drain timed out", held=self.held, relayed=self.relayed)
                for one in list(self.addresses.values()):
                    one.refuse_all("draining")
                poll_refusals()

        def poll_refusals() -> None:
            if self.refuser.lingering and time.monotonic() < deadline + REFUSAL_SECONDS:
                self.loop.call_later(DRAIN_POLL_SECONDS, poll_refusals)
            else:
                on_drained(False)

        poll()

    @property
    def held(self) -> int:
        return sum(one.queue.held for one in self.addresses.values())

    @property
    def relayed(self) -> int:
        return len(self.relay.connections)

    def _held_connections(self) -> Iterator[HeldConnection]:
        return (held for queue in self._queues() for held in queue.waiting if held.fd >= 0)

    def _queues(self) -> Iterator[HoldQueue]:
        return (one.queue for one in self.addresses.values())

    def _address(self, name: str) -> HoldAddress:
        if name not in self.addresses:
            timeout = ASSIGNMENT_GRACE_SECONDS if self.is_informed else UNASSIGNED_TIMEOUT_SECONDS
            assignment = self.assignments.get(name) or unassigned(name, timeout)
            self.addresses[name] = HoldAddress(self._context, name, assignment)
        return self.addresses[name]

    def _may_be_assigned(self, name: str) -> bool:
        """Return whether to hold connections to an address without an assignment for a moment, in case it comes."""
        if name in self.addresses:
            return True
        without = sum(1 for one in self.addresses.values() if not one.queue.is_assigned)
        return without < MAX_UNASSIGNED_ADDRESSES

    def _assign(self, name: str, assignment: Assignment) -> None:
        try:
            for endpoint in assignment.verdict.endpoints if isinstance(assignment.verdict, Go) else ():
                address.sockaddr(endpoint)
        except ValueError as error:
            log.error("ignored an invalid assignment", address=name, service=assignment.service, error=str(error))
            return
        self.assignments[name] = assignment
        if name in self.addresses:
            self.addresses[name].assign(assignment)
