"""The holder put together: accepted connections go to the gate of the address that they were made to.

Everything here runs in the loop's thread. The stream's thread comes in through `opened`, `received` and `closed`, by
way of `Loop.call_soon_threadsafe`; the metrics' thread only reads.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import structlog

from tproxy import address
from tproxy.control.keeper_client import Keeping
from tproxy.control.reporter import Link, Reporter
from tproxy.dial.dialer import Crowd
from tproxy.hold_address import Gate, Means
from tproxy.hold_queue import Held, Park
from tproxy.io.descriptors import Budget
from tproxy.io.loop import Loop
from tproxy.io.refuser import Refuser
from tproxy.relay.relay import Relay, Relayed
from tproxy.wire import Assignment, Down, Hello

log = structlog.get_logger("tproxy")

DRAIN_POLL_SECONDS = 0.02
LAST_WORDS_SECONDS = 0.5
"""How long refusals at the end of a drain may take to be read."""


class Holder:
    """All hold addresses of one listening socket."""

    def __init__(self, loop: Loop, budget: Budget, family: int, hello: Hello, keeper: Path | None = None) -> None:
        self.loop = loop
        self.budget = budget
        self.family = family
        self.hello = hello
        self.gates: dict[str, Gate] = {}
        """Of the addresses that were ever connected to: the others cost no more than their assignment."""
        self.assignments: dict[str, Assignment] = {}
        self.refused: Counter[str] = Counter()
        """Connections refused that belong to no service, by cause."""
        self.adopted = 0
        """Connections that an earlier holder held when it died."""
        self.is_informed = False
        """Whether the reconciler ever said all of its assignments."""
        self.is_linked = False
        """Whether the reconciler speaks to us at the moment."""
        self.is_diverted_to: bool | None = None
        """Mode tproxy: whether rules divert connections here; None: not known."""
        self.refuser = Refuser(loop, budget)
        self.relay = Relay(loop, self._relayed_ended, self._relayed_first_byte)
        self.reporter = Reporter(loop, hello, self._parks)
        self._crowd = Crowd(loop)
        self.keeping = Keeping(loop, keeper, self._waiting)
        self._means = Means(loop, budget, self._crowd, self.relay, self.refuser, self.reporter.changed, self.keeping)

    def adopt(self) -> None:
        """Continue to hold what an earlier holder held when it died; before anything is accepted."""
        for fd, since in self.keeping.adopt():
            self.budget.used += 1
            self.adopted += 1
            name = address.local(fd, self.family)
            gate = self.gates.get(name) or self.gates.setdefault(name, Gate(self._means, name, self.family, None))
            gate.adopt(fd, since)
        if self.adopted:
            log.warning("connections of an earlier holder are adopted", held=self.adopted)

    def accept(self, fd: int) -> None:
        """A connection was accepted."""
        self.budget.used += 1
        try:
            name = address.local(fd, self.family)
        except OSError:  # Reset before we came to it.
            self.refuser.refuse(fd, self.family, "tcp", "", 1)
            return
        gate = self.gates.get(name)
        if gate is None or gate.park.assignment is None:
            assignment = self.assignments.get(name)
            if assignment is None and self.is_informed:
                self.refused["unknown"] += 1
                self.refuser.refuse(fd, self.family, "tcp", "", 1)
                return
            if gate is None:
                gate = self.gates[name] = Gate(self._means, name, self.family, assignment)
        gate.arrive(fd)

    def diverted(self, diverted: bool) -> None:
        """Whether rules divert connections here is known, or is otherwise now."""
        if not diverted:
            log.warning("no rules divert connections here", remedy="zenvoy-tproxy rules --install")
        elif self.is_diverted_to is False:
            log.info("rules divert connections here again")
        self.is_diverted_to = diverted
        self.reporter.diverted(diverted)

    def overflowed(self) -> None:
        """A connection was refused because the process has no descriptor left at all."""
        self.refused["descriptors"] += 1

    # What the stream tells.

    def opened(self, link: Link) -> None:
        """A stream begins; nobody knows yet whether there is somebody at its other end."""
        self.reporter.opened(link)

    def received(self, link: Link, down: Down) -> None:
        """The reconciler spoke."""
        if not self.is_linked:
            self.is_linked = True
            log.info("the reconciler speaks", assignments=len(down.assign))
        named = {address.canonical(one.address): one for one in down.assign}
        removed = {address.canonical(one) for one in down.remove} - named.keys()
        if down.full:
            removed = self.assignments.keys() - named.keys()
        for name in removed:
            self._remove(name)
        for name, assignment in named.items():
            self._assign(name, assignment)
        if down.full and not self.is_informed:
            self.is_informed = True
            for name, gate in [(name, gate) for name, gate in self.gates.items() if gate.park.assignment is None]:
                gate.remove("unknown")
                self.refused.update(gate.park.refused)
                self._forget(name)
        self.reporter.acknowledge(link, down.version)

    def closed(self, link: Link, why: str) -> None:
        """A stream ended: go on with what was said last."""
        self.reporter.closed(link)
        if self.is_linked:
            self.is_linked = False
            log.warning("the reconciler is silent; holding and relaying go on", why=why)

    # How it ends.

    def drain(self, timeout_seconds: float, ended: Callable[[bool], None]) -> None:
        """Wait until nobody is held or relayed, for so long at most; then `ended(whether it came to that)`."""
        log.info("draining", held=self.held, relayed=self.relayed, timeout=timeout_seconds)
        deadline = time.monotonic() + timeout_seconds

        def look() -> None:
            now = time.monotonic()
            if not (self.held or self.relayed or self.refuser.lingering):
                ended(True)
            elif now < deadline:
                self.loop.call_at(min(deadline, now + DRAIN_POLL_SECONDS), look)
            else:
                log.warning("the drain timed out", held=self.held, relayed=self.relayed)
                for gate in list(self.gates.values()):
                    gate.refuse_all("draining")
                self._say_last_words(now + LAST_WORDS_SECONDS, ended)

        look()

    def _say_last_words(self, deadline: float, ended: Callable[[bool], None]) -> None:
        def look() -> None:
            if self.refuser.lingering and time.monotonic() < deadline:
                self.loop.call_at(time.monotonic() + DRAIN_POLL_SECONDS, look)
            else:
                ended(False)

        look()

    @property
    def held(self) -> int:
        """How many wait."""
        return sum(gate.park.held for gate in self.gates.values())

    @property
    def relayed(self) -> int:
        """How many are connected through."""
        return len(self.relay)

    # Within.

    def _waiting(self) -> Iterator[Held]:
        return (held for gate in self.gates.values() for held in gate.park.waiting if held.fd >= 0)

    def _parks(self) -> Iterator[Park]:
        return (gate.park for gate in self.gates.values())

    def _assign(self, name: str, assignment: Assignment) -> None:
        unusable = _unusable(assignment)
        if unusable:
            log.error("an assignment cannot be followed", address=name, service=assignment.service, why=unusable)
            return
        self.assignments[name] = assignment
        gate = self.gates.get(name)
        if gate is not None:
            gate.assign(assignment)

    def _remove(self, name: str) -> None:
        self.assignments.pop(name, None)
        gate = self.gates.get(name)
        if gate is not None:
            gate.remove("refused")
            self._forget(name)

    def _forget(self, name: str) -> None:
        gate = self.gates[name]
        self.reporter.changed(gate.park, False)
        if not gate.live:
            del self.gates[name]

    def _relayed_first_byte(self, relayed: Relayed) -> None:
        gate = relayed.tag
        assert isinstance(gate, Gate)
        gate.first_byte(relayed)

    def _relayed_ended(self, relayed: Relayed) -> None:
        gate = relayed.tag
        assert isinstance(gate, Gate)
        gate.ended(relayed)
        if gate.park.assignment is None and not gate.live and self.gates.get(gate.park.address) is gate:
            del self.gates[gate.park.address]
        self._crowd.feed()


def _unusable(assignment: Assignment) -> str | None:
    """Why an assignment cannot be followed."""
    try:
        for one in getattr(assignment.verdict, "endpoints", ()):
            address.sockaddr(one)
    except ValueError as error:
        return str(error)
    return None
