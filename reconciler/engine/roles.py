"""Leading and following: whose record counts, and what changes when that changes. Counterpart: `core.follow`.

Rule: the one that leads judges, allocates, saves and shares; a follower takes its records, and brings them about.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from reconciler.core.events import Event, WakeCommanded, WakeStalled
from reconciler.core.follower import fenced, in_force, on_demoted, on_elected
from reconciler.core.reasons import Unknown
from reconciler.core.record import Record, State
from reconciler.core.traffic import NO_SAMPLE, Sample
from reconciler.engine.history import History
from reconciler.engine.service import Service, ServiceIndex
from reconciler.engine.tally import Tally
from reconciler.engine.turns import Turns, in_turn
from reconciler.engine.wake import Wake
from reconciler.ports.replicas import Standing
from reconciler.ports.store import NoIndexLeft
from reconciler.ports.transitions import Listener, Transition

if TYPE_CHECKING:
    from reconciler.engine.engine import Adapters

MOST_UNTOLD = 4
"""Own steps that a follower remembers of each service, for when it leads."""


class Roles:
    """The part of the engine that knows whether it leads."""

    _now: Callable[[], float]
    _hold_address: Callable[[int], str]
    _hold_addresses: float
    _listens_at: Callable[[str], bool]
    _listen: Listener
    _woken: Callable[[str, Wake], None]
    _services: dict[str, Service]
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
        """False: another replica does, or it is not known which."""
        self._words: dict[str, tuple[Record, bool, str]] = {}
        """The leader's words, including those for services that are not configured here yet."""
        self._owners: dict[str, str] = {}
        """A leader's: whose a hold address is, of those that are in use."""
        self._forsaken = False

    def _settle(self, name: str) -> None:
        raise NotImplementedError

    @in_turn
    def adopt(self, name: str, record: Record | None, fence: bool = False, cause: str = "") -> None:
        """The leader's record is this now; None: the service is no more there. `fence`: step nothing until the next.

        `cause` names the event that brought its state about, where the leader knows it.
        """
        if self.leads:
            return
        self._forsaken = False
        if record is None:
            self._words.pop(name, None)
        else:
            self._words[name] = (replace(record, since=min(record.since, self._now())), fence, cause)
            if service := self._services.get(name):
                self._take_word(name, service)
                self._settle(name)

    @in_turn
    def lead(self, since: float) -> None:
        """Begin to lead, since `since` (seconds since the epoch); backends should have reported before.

        What another leader was about to put to sleep is awake again; what has no record gets one.
        """
        self.leads, self._forsaken = True, False
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
            service.believes(ended=False)  # nobody but us puts anything to sleep from now on
            self._settle(name)
        # What is not configured yet was left by another leader too, and is configured when who knows what runs of it.
        self._saved = {name: on_elected(record, None, since) for name, record in self._saved.items()}

    def untold(self) -> list[Transition]:
        """Return the transitions of this replica while there was no leader to publish them; each is returned once."""
        found = [move for service in self._services.values() for move in service.untold]
        for service in self._services.values():
            service.untold = ()
        return sorted(found, key=lambda move: move.at)

    @in_turn
    def follow(self) -> None:
        """Stop leading, or start as a follower."""
        if not self.leads:
            return
        self.leads, self._forsaken = False, False
        self._words.clear()
        for name, service in self._services.items():
            service.word, service.fence = None, False
            if before := service.record:
                service.record = on_demoted(before, self._now())
                self._changed(name, service, before, "LeaderChanged")
                if service.record.state is State.ScaledToZero:
                    service.believes(ended=True, zeroed=service.record.zeroed)
            self._settle(name)

    @in_turn
    def forsake(self) -> None:
        """There was no leader for so long that none can act on what it heard of us: get on alone.

        What the leader fenced is not any more, and what has no record goes by the one that was saved.
        """
        if self.leads:
            return
        self._forsaken = True
        saved = self._adapters.store.records()
        for name, service in self._services.items():
            service.fence = False
            service.believes(ended=False)
            if service.record is None and name in saved and self._listens_at(saved[name].hold_address):
                service.record = saved[name]
                self._service_index.note(name, service.record)
            self._settle(name)

    @in_turn
    def allocate(self) -> None:
        """There are indexes for hold addresses again."""
        for name in list(self._service_index.unknown):
            self._begin(name, self._services[name])
            self._settle(name)

    def standing(self, name: str) -> Standing | None:
        """Return the progress of the leader's word on a service; None without a word or service."""
        service = self._services.get(name)
        if service is None or service.record is None or service.word is None:
            return None
        why = in_force(service.record, service.word, service.fence, service.seen)
        return Standing(why is None, why or "")

    def _take_word(self, name: str, service: Service) -> None:
        """Let the leader's word be the record."""
        word, fence, cause = self._words[name]
        before, service.record, service.word = service.record, word, word
        service.fence, service.untold = fence and not self._forsaken, ()
        if word.state is State.ScaledToZero:
            service.believes(ended=True, zeroed=word.zeroed)
        elif word.state is not State.Waking:
            service.believes(ended=False)
        elif before is None:  # what went before is not known, so it may have been a sleep
            service.believes(ended=True, zeroed=True)
        if before is None or before.state is not word.state:
            self._service_index.note(name, word)
        if before is None:
            service.cause = cause
            return
        if before.state is not word.state and (wake := service.stepped(before, word, cause)):
            self._woken(name, wake)
        self._note_step(name, before, word, cause)

    def _origin(self, name: str) -> Record | None:
        """The record of a service that is configured for the first time, if there is one."""
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
        """The same address while holders listen there, and nobody else has it; a new one otherwise."""
        if self._listens_at(address) and self._owners.setdefault(address, name) == name:
            return address
        return self._new_hold_address(name)

    def _new_hold_address(self, name: str) -> str:
        """One that no other service has: there are fewer addresses than indexes, so they come again.

        Raises `NoIndexLeft`, also when each address is somebody's.
        """
        if len(self._owners) >= self._hold_addresses:
            raise NoIndexLeft
        while True:
            address = self._hold_address(self._adapters.store.next_index())
            if self._owners.setdefault(address, name) == name:
                return address

    def _has_the_port(self, address: str) -> bool:
        return address.rpartition(":")[2] == self._hold_address(0).rpartition(":")[2]

    def _begin(self, name: str, service: Service) -> None:
        """Make the record of a service that is seen for the first time: Active when it runs, or may run for all that
        is known, so that it gets a full `idleAfter`."""
        replicas, diagnosis = service.seen.replicas, service.seen.diagnosis
        if (replicas is None and diagnosis is None) or not self.leads:
            return
        state = State.ScaledToZero if replicas == 0 else State.Active
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

    def _share(self, name: str, service: Service) -> None:
        """Tell followers what is new; whoever acknowledged what was before has not acknowledged this."""
        assert service.record is not None
        if not self.leads:
            return
        record, fence = service.record, fenced(service.record, service.seen)
        if service.shared != record or service.shared_fence != fence:
            service.shared, service.shared_fence = record, fence
            if state := self._adapters.replicas.share(name, record, fence, service.cause):
                service.saw_route(state)

    def _changed(self, name: str, service: Service, before: Record, event: str) -> None:
        """A record changed by a change of leaders."""
        after = service.record
        assert after is not None
        self._service_index.note(name, after)
        if after.state is not before.state:
            service.cause = event
            self._moved(service, Transition(name, before.state, event, after.state, after.reason, after.since))

    def _moved(self, service: Service, transition: Transition) -> None:
        """A record was changed here: for people."""
        self.history.note(transition)
        if not self.leads:
            service.untold = (*service.untold[1 - MOST_UNTOLD :], transition)
        self._listen(transition)

    def _note_step(self, name: str, before: Record, word: Record, cause: str) -> None:
        """Remember what the leader did, as whoever leads next is asked for it."""
        if before.state is not word.state:
            self.history.note(Transition(name, before.state, cause, word.state, word.reason, word.since))
        elif word.stalled and before.stalled != word.stalled:
            stalled = WakeStalled(word.stalled)
            self.history.note(Transition(name, word.state, stalled.name, word.state, stalled.reason, self._now()))

    def _may_wake(self, record: Record, event: Event) -> bool:
        """Return whether a follower may carry out a command by itself."""
        return isinstance(event, WakeCommanded) and record.state is State.ScaledToZero
