"""Leading and following: the effects of leader election on records. Counterpart: `core.follower`.

Rule: the leader judges, allocates, saves and shares; a follower adopts the leader's records and converges to them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from reconciler.core.events import WakeStalled
from reconciler.core.follower import on_demoted, on_elected
from reconciler.core.lifecycle import Block
from reconciler.core.record import Record, State, Transition
from reconciler.engine.history import History
from reconciler.engine.records import RecordKeeper
from reconciler.engine.service import ManagedService, ServiceIndex, TransitionListener
from reconciler.ports.clock import Clock

MAX_UNREPORTED = 4
"""Number of own transitions per service that a follower keeps until it leads."""


class Leadership:
    """The role of this replica, which starts as leader, and the records that it adopts as follower.

    A method that changes many services yields each one, which then has to be settled before the next one changes.
    """

    def __init__(
        self,
        clock: Clock,
        index: ServiceIndex,
        records: RecordKeeper,
        history: History,
        listener: TransitionListener,
    ) -> None:
        self._clock, self._index, self._records = clock, index, records
        self._history, self._listener = history, listener
        self.leads = True
        """False if another replica leads, or if the leader is unknown."""
        self.detached = False
        """True if this replica continues without a leader."""
        self._updates: dict[str, tuple[Record, bool, str]] = {}
        """The leader's records, fences and causes, including those of services that are not configured here yet."""

    def adopt(self, name: str, record: Record | None, fence: bool, cause: str) -> bool:
        """Adopt the leader's record; None if the service is gone. Return whether a service has to be settled."""
        if self.leads:
            return False
        self.detached = False
        if record is None:
            self._updates.pop(name, None)
            return False
        self._updates[name] = (replace(record, since=min(record.since, self._clock.now())), fence, cause)
        return self.adopt_known(name)

    def adopt_known(self, name: str) -> bool:
        """Adopt what the leader reported of a service, as follower; return whether the service is configured."""
        service = self._index.services.get(name)
        if self.leads or service is None or name not in self._updates:
            return False
        after, fence, cause = self._updates[name]
        before, service.record, service.shared = service.record, after, after
        service.fence, service.unreported = fence and not self.detached, ()
        if after.state is State.ScaledToZero:
            service.block(_block_asleep(after))
        elif after.state is not State.Waking:
            service.block(Block.Lifted)
        elif before is None:  # the earlier state is unknown and may have been asleep
            service.block(Block.Marked)
        if before is None or before.state is not after.state:
            self._index.note(name, after)
        # The leader's transitions are in the history, too: people query it on the next leader.
        if before is None:
            service.cause = cause
        elif before.state is not after.state:
            if wake := service.stepped(before, after, cause):
                self._listener.woke(name, wake)
            self._history.note(Transition(name, before.state, cause, after.state, after.reason, after.since))
        elif after.stalled and before.stalled != after.stalled:
            now = self._clock.now()
            self._history.note(Transition(name, after.state, WakeStalled.__name__, after.state, after.stalled, now))
        return True

    def lead(self, since: float) -> Iterator[str]:
        """Start to lead at `since` (seconds since the epoch); backends should have reported before.

        A service whose sleep the previous leader did not complete is awake again. A service without a record gets one.
        """
        self.leads, self.detached = True, False
        self._updates.clear()
        self._records.start_term()
        for name, service in self._index.services.items():
            service.shared, service.fence = None, False
            service.seen = replace(service.seen, traffic=None, silent_since=None)
            before = service.record or self._records.restore(name)
            if before:
                service.record = on_elected(before, service.seen.replicas, since)
                self._report_change(name, service, before)
                self._records.save(name, service.record)
            else:
                self._records.create(name, service)
            service.block(Block.Lifted)  # from now on only this replica puts services to sleep
            yield name
        self._records.mark_elected(since)  # they also come from another leader, and may be outdated

    def follow(self) -> Iterator[str]:
        """Stop leading, or start as a follower."""
        if not self.leads:
            return
        self.leads, self.detached = False, False
        self._updates.clear()
        for name, service in self._index.services.items():
            service.shared, service.fence = None, False
            if before := service.record:
                service.record = on_demoted(before, self._clock.now())
                self._report_change(name, service, before)
                if service.record.state is State.ScaledToZero:
                    service.block(_block_asleep(service.record))
            yield name

    def detach(self) -> Iterator[str]:
        """Continue without a leader, after so long that no leader can act on this replica's reports.

        Fences end, and a service without a record gets its saved record.
        """
        if self.leads:
            return
        self.detached = True
        saved = self._records.usable()
        for name, service in self._index.services.items():
            service.fence = False
            service.block(Block.Lifted)
            if service.record is None and name in saved:
                service.record = saved[name]
                self._index.note(name, service.record)
            yield name

    def allocate(self) -> Iterator[str]:
        """Retry services without a record, after new indexes for hold addresses are available."""
        for name in list(self._index.unknown):
            if self.leads:
                self._records.create(name, self._index.services[name])
            yield name

    def report(self, service: ManagedService, transition: Transition) -> None:
        """Report a transition of this replica."""
        self._history.note(transition)
        if not self.leads:
            service.unreported = (*service.unreported[1 - MAX_UNREPORTED :], transition)
        self._listener.saw(transition)

    def unreported(self) -> list[Transition]:
        """Return the transitions of this replica while there was no leader to publish them; each is returned once."""
        services = self._index.services.values()
        found = [move for service in services for move in service.unreported]
        for service in services:
            service.unreported = ()
        return sorted(found, key=lambda move: move.at)

    def _report_change(self, name: str, service: ManagedService, before: Record) -> None:
        """Report a record that a change of leaders changed."""
        after = service.record
        assert after is not None
        self._index.note(name, after)
        if after.state is not before.state:
            service.cause = "LeaderChanged"
            self.report(service, Transition(name, before.state, service.cause, after.state, after.reason, after.since))


def _block_asleep(record: Record) -> Block:
    """Return the block of a service that fell asleep; after an observed zero, other endpoints are new."""
    return Block.Marked if record.zeroed else Block.Every
