"""One hold address at work: the I/O around a `Park`. Connections arrive, wait, and leave by one of four ways:
released over a dial that succeeded, refused, gone by themselves, or timed out (which is a refusal too)."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from tproxy.control.keeper_client import Keeping
from tproxy.dial.dialer import Crowd, Dialer
from tproxy.hold_queue import UNKNOWN_TIMEOUT_SECONDS, Cause, Held, Park, explanation
from tproxy.io.descriptors import Budget
from tproxy.io.loop import Loop, Timer
from tproxy.io.peek import header, peek
from tproxy.io.refuser import Refuser
from tproxy.protocols.held_requests import Calls
from tproxy.relay.relay import Relay, Relayed
from tproxy.wire import Assignment, Refuse

_ESTABLISHED, _CLOSED = 1, 7  # linux/tcp_states.h
_PEEKED_BYTES = 131_072
"""Of an HTTP/2 connection, what is looked at. Without an answer no peer sends more than 64 KiB besides headers."""
_ALMOST_SECONDS, _ALMOST_PART = 1.0, 0.1
"""Who has waited for holdTimeout but for this has waited that long: to be held anew would nearly double it."""
_RETRY_AFTER_SECONDS: dict[Cause, int] = {"timeout": 5, "refused": 30, "unknown": 30}


@dataclass(frozen=True, slots=True)
class Means:
    """What all gates of a holder share."""

    loop: Loop
    budget: Budget
    crowd: Crowd
    relay: Relay
    refuser: Refuser
    changed: Callable[[Park, bool], None]
    """Told which park changed, and whether that must be said at once."""
    keeping: Keeping


class Gate:
    """One hold address at work."""

    __slots__ = ("_dialer", "_means", "_timer", "live", "park")

    def __init__(self, means: Means, name: str, family: int, assignment: Assignment | None) -> None:
        self._means = means
        self.park = Park(name, family, self._stirred, assignment)
        self.live: set[Relayed] = set()
        self._dialer = Dialer(means.loop, means.budget, means.crowd, self, self.park.endpoints)
        self._timer: Timer | None = None

    def arrive(self, fd: int) -> None:
        """A connection was accepted, and counted in the budget."""
        cause = self.park.refusal() or (None if self._means.budget.admits() else "descriptors")
        if cause:
            self._refuse(fd, cause, 0.0)
            return
        self._hold(fd, time.monotonic())

    def adopt(self, fd: int, since: float) -> None:
        """Hold a connection of an earlier holder, counted in the budget; the bounds were that holder's."""
        self.park.patience = max(self.park.patience, time.monotonic() - since + UNKNOWN_TIMEOUT_SECONDS)
        self._hold(fd, since)

    def _hold(self, fd: int, since: float) -> None:
        held = self.park.hold(fd, since)
        held.calls = Calls() if self.park.protocol == "h2c" else None
        if self.park.tells_client:
            self.park.coming.add(held)
        try:
            self._means.loop.register(fd, self._interest(), held)
        except OSError:  # epoll_ctl(2): out of memory, or of watches
            self._refuse(self.park.leave(held), "descriptors", 0.0)
            return
        self._arm()
        self._means.changed(self.park, self.park.held == 1 and not self.park.endpoints)
        self._means.keeping.keep(held)
        self._dialer.pump()

    def assign(self, assignment: Assignment) -> None:
        """This is in force from now on."""
        park, before = self.park, self.park.assignment
        if assignment == before:
            return
        endpoints, protocol, had_header = park.endpoints, park.protocol, park.has_header
        if before is not None and before.service != assignment.service:
            self.refuse_all("refused")  # they came for another service
        park.assignment = assignment
        if isinstance(assignment.verdict, Refuse):
            self.refuse_all("refused")
        if park.protocol != protocol or park.has_header != had_header:
            self._reinterpret(before)
        if before is None or before.hold_timeout != assignment.hold_timeout:
            self._rearm()
        if park.endpoints != endpoints:
            self._dialer.aim(park.endpoints)
        self._dialer.pump()

    def remove(self, cause: Cause) -> None:
        """The address is no longer used: nobody waits there any more. Relayed connections go on."""
        self.refuse_all(cause)
        self.park.assignment = None
        self._dialer.aim(())

    def refuse_all(self, cause: Cause) -> None:
        """Refuse everybody who waits."""
        while held := self.park.oldest():
            self._dismiss(held, cause)
        self._dialer.pump()

    # What the dialer asks and tells.

    def wanted(self) -> int:
        """How many connections wait, and may be handed on."""
        return self.park.releasable

    def connected(self, fd: int) -> None:
        """Release whoever has waited longest over this connection."""
        park, means = self.park, self._means
        while (held := park.next()) and self._is_gone(held.fd):
            self._drop(held)
        if held is None:
            os.close(fd)
            means.budget.used -= 1
            return
        if park.tells_client and not park.knows_client:
            park.note(held)
        self._take_header(held)
        client = self._leave(held)
        try:
            relayed = means.relay.start(client, fd, b"", self)
        except OSError:
            # Its client left within the last microseconds; both descriptors are closed.
            means.budget.used -= 2
            park.gone += 1
        else:
            self.live.add(relayed)
            park.released += 1
            park.relayed += 1
        means.changed(park, False)

    # What the relay tells.

    def first_byte(self, relayed: Relayed) -> None:
        """An endpoint has begun to answer."""
        if self.park.first_byte_at is None or self.park.first_byte_at < (self.park.held_since or 0):
            self.park.first_byte_at = relayed.first_byte_at
            self._means.changed(self.park, False)

    def ended(self, relayed: Relayed) -> None:
        """A relayed connection is over."""
        park = self.park
        self.live.discard(relayed)
        park.relayed -= 1
        park.relayed_bytes[0] += relayed.bytes_up
        park.relayed_bytes[1] += relayed.bytes_down
        self._means.budget.used -= 2
        self._means.changed(park, False)

    # Within.

    def _reinterpret(self, before: Assignment | None) -> None:
        """Connections that wait were made when other things were said of this address, or nothing."""
        park = self.park
        there = [held for held in park.waiting if held.fd >= 0]
        if park.tells_client and before is None:
            park.coming.update(there)
        for held in there:
            held.calls = Calls() if park.protocol == "h2c" else None
            if not park.has_header:
                self._take_header(held)
            self._means.loop.modify(held.fd, self._interest())

    def _interest(self) -> int:
        """What ends a wait. A TCP client that ended its own side may still expect an answer; an HTTP one does not.
        Readable data stays in the kernel, and is not asked for but where it tells something, each time that there is
        more."""
        ends = select.EPOLLRDHUP if self.park.is_http else 0
        looks = self.park.tells_client or self.park.coming
        return ends | select.EPOLLIN | select.EPOLLET if looks else ends

    def _is_gone(self, fd: int) -> bool:
        """Asked just before a release: the event that says so may be behind us in the same batch."""
        state = _state(fd)
        return state != _ESTABLISHED if self.park.is_http else state == _CLOSED

    def _stirred(self, held: Held, events: int) -> None:
        if events & ~select.EPOLLIN:
            self._drop(held)
        elif held in self.park.coming and not self._has_come(held):
            return
        else:
            self._look(held)
        self._dialer.pump()

    def _look(self, held: Held) -> None:
        """There is more of what its client sent; that it had connected was told before, and did not wait for this."""
        if held is self.park.oldest() and not self.park.knows_client:
            self._means.changed(self.park, False)
        if held.calls and held.calls.look(peek(held.fd, _PEEKED_BYTES), time.monotonic()):
            self.park.gone += 1
            self._hand_back(held)

    def _has_come(self, held: Held) -> bool:
        """Whether the beginning of what its client sent is there to see. A header before a request, which never looks
        like one, is from an Envoy that took the service for one of another protocol."""
        found = header(held.fd)
        if found:
            self.park.coming.remove(held)
            held.header = found.size
            if not self.park.has_header:
                self._take_header(held)
        elif _state(held.fd) != _ESTABLISHED:
            self._drop(held)  # whoever sends nothing at all has nothing to say
        return found is not None

    def _take_header(self, held: Held) -> None:
        """Whom it is handed to knows nothing of it."""
        if held.header:
            os.read(held.fd, held.header)
            held.header = 0

    def _hand_back(self, held: Held) -> None:
        """Nobody is to be answered. But a request may be on its way, which only GOAWAY lets Envoy make again."""
        self._means.refuser.refuse(self._leave(held), self.park.family, "h2c", "", 1, last=0)
        self._means.changed(self.park, False)

    def _drop(self, held: Held) -> None:
        os.close(self._leave(held))
        self._means.budget.used -= 1
        self.park.gone += 1
        self._means.changed(self.park, False)

    def _leave(self, held: Held) -> int:
        self._means.loop.unregister(held.fd)
        self._means.keeping.drop(held.fd)
        return self.park.leave(held)

    def _refuse(self, fd: int, cause: Cause, waited: float, last: int | None = None) -> None:
        park = self.park
        park.refused[cause] += 1
        reason = explanation(park, cause, waited)
        self._means.refuser.refuse(fd, park.family, park.protocol, reason, _RETRY_AFTER_SECONDS.get(cause, 1), last)
        self._means.changed(park, False)

    def _dismiss(self, held: Held, cause: Cause) -> None:
        last = held.calls.last if held.calls else None
        self._refuse(self._leave(held), cause, time.monotonic() - held.since, last)

    def _time_out(self, held: Held) -> None:
        """Refuse who has waited long enough; who shares the connection and came later goes on waiting, on another."""
        now, limit = time.monotonic(), self.park.hold_timeout
        almost = limit - min(_ALMOST_SECONDS, _ALMOST_PART * limit)
        last = held.calls.waiting_since(now - almost) if held.calls else None
        if last == 0:
            self._hand_back(held)
        else:
            self._refuse(self._leave(held), "timeout", now - held.since, last)

    def _arm(self) -> None:
        oldest = self.park.oldest()
        if self._timer is None and oldest is not None:
            self._timer = self._means.loop.call_at(oldest.since + self.park.hold_timeout, self._expire)

    def _rearm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._arm()

    def _expire(self) -> None:
        self._timer = None
        before = time.monotonic() - self.park.hold_timeout
        while (oldest := self.park.oldest()) and oldest.since <= before:
            self._time_out(oldest)
        self._arm()
        self._dialer.pump()


def _state(fd: int) -> int:
    """What TCP makes of a connection (tcp(7): TCP_INFO)."""
    view = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fd)
    try:
        return view.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    finally:
        view.detach()
