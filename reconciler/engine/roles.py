"""Leading and following: the effects of leader election on records. Counterpart: `core.follower`.

Rule: the leader judges, allocates, saves and shares; a follower adopts the leader's records and converges to them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from reconciler.core.events import Event, WakeCommanded, WakeStalled
from reconciler.core.follower import fenced, in_force, on_demoted, on_elected
from reconciler.core.lifecycle import EndpointEvent, EndpointsRestored, EndpointsWithdrawn, ScaledDown
from reconciler.core.reasons import Unknown
from reconciler.core.record import Record, State
from reconciler.core.traffic import NO_SAMPLE, Sample
from reconciler.engine.history import History
from reconciler.engine.service import ManagedService, ServiceIndex
from reconciler.engine.tally import Tally
from reconciler.engine.turns import Turns, in_turn
from reconciler.engine.wake import Wake
from reconciler.ports.replicas import RecordProgress
from reconciler.ports.store import NoIndexLeft
from reconciler.ports.transitions import Listener, Transition

if TYPE_CHECKING:
    from reconciler.engine.engine import Adapters

MAX_UNREPORTED = 4
"""Number of own transitions per service that a follower keeps until it leads."""


class Roles:
    """The part of the engine that depends on whether it leads."""

    _now: Callable[[], float]
    _hold_address: Callable[[int], str]
    _hold_addresses: float
    _listens_at: Callable[[str], bool]
    _listen: Listener
    _woken: Callable[[str, Wake], None]
    _services: dict[str, ManagedService]
    _service_index: ServiceIndex
    _saved: dict[str, Record]
    _adapters: Adapters
    sample: Sample | None
    unknown: Unknown | None
    tally: Tally
    history: History
    turns: Turns

    def __init__(self) -> None:
        self.leads = True
        """False if another replica leads, or if the leader is unknown."""
        self._words: dict[str, tuple[Record, bool, str]] = {}
        """The leader's records, fences and causes, including those of services that are not configured here yet."""
        self._owners: dict[str, str] = {}
        """Leader only: the service of each hold address in use."""
        self._detached = False

    def _settle(self, name: str) -> None:
        raise NotImplementedError

    @in_turn
    def adopt(self, name: str, record: Record | None, fence: bool = False, cause: str = "") -> None:
        """Adopt the leader's record; None if the service is gone. With `fence`, do not step it until the next record.

        `cause` is the name of the event that led to its state; empty if the leader does not know it.
        """
        if self.leads:
            return
        self._detached = False
        if record is None:
            self._words.pop(name, None)
        else:
            self._words[name] = (replace(record, since=min(record.since, self._now())), fence, cause)
            if service := self._services.get(name):
                self._take_word(name, service)
                self._settle(name)

    @in_turn
    def lead(self, since: float) -> None:
        """Start to lead at `since` (seconds since the epoch); backends should have reported before.

        A service whose sleep the previous leader did not complete is awake again. A service without a record gets one.
        """
        self.leads, self._detached = True, False
        self.sample, self.unknown, self.tally = None, NO_SAMPLE, Tally(since)
        self._words.clear()
        self._saved = self._adapters.store.records()
        self._owners = {one.record.hold_address: name for name, one in self._services.items() if one.record}
        for name, service in self._services.items():
            service.word, service.fence, service.shared = None, False, None
            service.seen = replace(service.seen, traffic=None, silent_since=None)
            before = service.record or self._restored(name)
            if before:
                service.record = on_elected(before, service.seen.replicas, since)
                self._changed(name, service, before, "LeaderChanged")
                self._save(name, service.record)
            else:
                self._begin(name, service)
            service.set_terminating(EndpointsRestored())  # from now on only this replica puts services to sleep
            self._settle(name)
        # Saved records of services that are not configured yet also come from another leader, and may be outdated.
        self._saved = {name: on_elected(record, None, since) for name, record in self._saved.items()}

    def unreported(self) -> list[Transition]:
        """Return the transitions of this replica while there was no leader to publish them; each is returned once."""
        found = [move for service in self._services.values() for move in service.unreported]
        for service in self._services.values():
            service.unreported = ()
        return sorted(found, key=lambda move: move.at)

    @in_turn
    def follow(self) -> None:
        """Stop leading, or start as a follower."""
        if not self.leads:
            return
        self.leads, self._detached = False, False
        self._words.clear()
        for name, service in self._services.items():
            service.word, service.fence = None, False
            if before := service.record:
                service.record = on_demoted(before, self._now())
                self._changed(name, service, before, "LeaderChanged")
                if service.record.state is State.ScaledToZero:
                    service.set_terminating(_scaled_down(service.record))
            self._settle(name)

    @in_turn
    def detach(self) -> None:
        """Continue without a leader, after so long that no leader can act on this replica's reports.

        Fences end, and a service without a record gets its saved record.
        """
        if self.leads:
            return
        self._detached = True
        saved = self._adapters.store.records()
        for name, service in self._services.items():
            service.fence = False
            service.set_terminating(EndpointsRestored())
            if service.record is None and name in saved and self._listens_at(saved[name].hold_address):
                service.record = saved[name]
                self._service_index.note(name, service.record)
            self._settle(name)

    @in_turn
    def allocate(self) -> None:
        """Retry services without a record, after new indexes for hold addresses are available."""
        for name in list(self._service_index.unknown):
            self._begin(name, self._services[name])
            self._settle(name)

    def record_progress(self, name: str) -> RecordProgress | None:
        """Return the progress of the leader's record of a service; None without that record."""
        service = self._services.get(name)
        if service is None or service.record is None or service.word is None:
            return None
        reason = in_force(service.record, service.word, service.fence, service.seen)
        return RecordProgress(reason is None, reason or "")

    def _take_word(self, name: str, service: ManagedService) -> None:
        """Replace the record by the leader's."""
        word, fence, cause = self._words[name]
        before, service.record, service.word = service.record, word, word
        service.fence, service.unreported = fence and not self._detached, ()
        if word.state is State.ScaledToZero:
            service.set_terminating(_scaled_down(word))
        elif word.state is not State.Waking:
            service.set_terminating(EndpointsRestored())
        elif before is None:  # the earlier state is unknown and may have been asleep
            service.set_terminating(EndpointsWithdrawn())
        if before is None or before.state is not word.state:
            self._service_index.note(name, word)
        if before is None:
            service.cause = cause
            return
        if before.state is not word.state and (wake := service.stepped(before, word, cause)):
            self._woken(name, wake)
        self._note_step(name, before, word, cause)

    def _origin(self, name: str) -> Record | None:
        """Return the initial record of a service, or None if there is none."""
        return self._restored(name) if self.leads else None

    def _restored(self, name: str) -> Record | None:
        record = self._saved.pop(name, None)
        if record is None:
            return None
        try:
            address = self._hold_address_like(name, record.hold_address)
        except NoIndexLeft:
            return None
        restored = replace(record, hold_address=address, since=min(record.since, self._now()))
        if restored != record:
            self._save(name, restored)
        return restored

    def _hold_address_like(self, name: str, address: str) -> str:
        """Return the same address if holders listen there and it has no other service; otherwise a new one."""
        if self._listens_at(address) and self._owners.setdefault(address, name) == name:
            return address
        return self._new_hold_address(name)

    def _new_hold_address(self, name: str) -> str:
        """Return an address without a service. Raises `NoIndexLeft`, also if every address is in use.

        There are fewer addresses than indexes, so that addresses repeat.
        """
        if len(self._owners) >= self._hold_addresses:
            raise NoIndexLeft
        while True:
            address = self._hold_address(self._adapters.store.next_index())
            if self._owners.setdefault(address, name) == name:
                return address

    def _has_the_port(self, address: str) -> bool:
        return address.rpartition(":")[2] == self._hold_address(0).rpartition(":")[2]

    def _begin(self, name: str, service: ManagedService) -> None:
        """Create the record of a service that is observed for the first time.

        Its state is Active if it runs, so that it gets a full `idleAfter`, and Waking if it is only just starting.
        """
        replicas, diagnosis = service.seen.replicas, service.seen.diagnosis
        if (replicas is None and diagnosis is None) or not self.leads:
            return
        state = State.ScaledToZero if replicas == 0 else State.Active
        if replicas and not service.seen.endpoints:
            state, service.recovers = State.Waking, True  # no client waited for this start: it is not counted as a wake
        try:
            address = self._new_hold_address(name)
        except NoIndexLeft:
            return
        service.record = Record(state, self._now(), "seen for the first time", max(1, replicas or 0), address)
        self._service_index.note(name, service.record)
        self._save(name, service.record)

    def _save(self, name: str, record: Record) -> None:
        if self.leads:
            self._adapters.store.save(name, record)

    def _share(self, name: str, service: ManagedService) -> None:
        """Share a changed record with followers; this invalidates earlier acknowledgements."""
        assert service.record is not None
        if not self.leads:
            return
        record, fence = service.record, fenced(service.record, service.seen)
        if service.shared != record or service.shared_fence != fence:
            service.shared, service.shared_fence = record, fence
            if state := self._adapters.replicas.share(name, record, fence, service.cause):
                service.saw_route(state)

    def _changed(self, name: str, service: ManagedService, before: Record, event: str) -> None:
        """Report a record that a change of leaders changed."""
        after = service.record
        assert after is not None
        self._service_index.note(name, after)
        if after.state is not before.state:
            service.cause = event
            self._moved(service, Transition(name, before.state, event, after.state, after.reason, after.since))

    def _moved(self, service: ManagedService, transition: Transition) -> None:
        """Report a transition of this replica."""
        self.history.note(transition)
        if not self.leads:
            service.unreported = (*service.unreported[1 - MAX_UNREPORTED :], transition)
        self._listen(transition)

    def _note_step(self, name: str, before: Record, word: Record, cause: str) -> None:
        """Add the leader's transition to the history, which people query on the next leader."""
        if before.state is not word.state:
            self.history.note(Transition(name, before.state, cause, word.state, word.reason, word.since))
        elif word.stalled and before.stalled != word.stalled:
            stalled = WakeStalled(word.stalled)
            self.history.note(Transition(name, word.state, stalled.name, word.state, stalled.reason, self._now()))

    def _may_wake(self, record: Record, event: Event) -> bool:
        """Return whether a follower may carry out a command by itself."""
        return isinstance(event, WakeCommanded) and record.state is State.ScaledToZero


def _scaled_down(asleep: Record) -> EndpointEvent:
    """Return the event of the endpoints of a service that fell asleep; after an observed zero, others are new."""
    return EndpointsWithdrawn() if asleep.zeroed else ScaledDown()
