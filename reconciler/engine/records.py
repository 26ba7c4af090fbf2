"""The records of services: restored from the store, created for new services, and saved. Only the leader saves.

Rule: holders listen on the hold address of every record, and no two records have the same one.
"""

from __future__ import annotations

from dataclasses import replace

from reconciler.core.follower import on_elected
from reconciler.core.record import Record, State
from reconciler.engine.hold_addresses import HoldRange
from reconciler.engine.service import ManagedService, ServiceIndex
from reconciler.ports.clock import Clock
from reconciler.ports.store import NoIndexLeft, Store


class RecordKeeper:
    """The saved records, and the hold addresses in use, each by one service. `start` connects the store."""

    def __init__(self, clock: Clock, hold_range: HoldRange, index: ServiceIndex) -> None:
        self._clock, self._range, self._index = clock, hold_range, index
        self._saved: dict[str, Record] = {}
        """Saved records of services that are not configured yet."""
        self._owners: dict[str, str] = {}
        """The service of each hold address in use."""

    def start(self, store: Store) -> None:
        """Restore the records."""
        self._store = store
        self._saved = store.records()

    def save(self, name: str, record: Record) -> None:
        """Save a record, as leader."""
        self._store.save(name, record)

    def restore(self, name: str) -> Record | None:
        """Return the saved record of a service, with a hold address that it can use; None without either."""
        record = self._saved.pop(name, None)
        if record is None:
            return None
        try:
            address = self._reassign(name, record.hold_address)
        except NoIndexLeft:
            return None
        restored = replace(record, hold_address=address, since=min(record.since, self._clock.now()))
        if restored != record:
            self.save(name, restored)
        return restored

    def create(self, name: str, service: ManagedService) -> None:
        """Create the record of a service that is observed for the first time, if there is a hold address for it.

        Its state is Active if it runs, so that it gets a full `idleAfter`, and Waking if it is only just starting.
        """
        replicas, diagnosis = service.seen.replicas, service.seen.diagnosis
        if replicas is None and diagnosis is None:
            return
        state = State.ScaledToZero if replicas == 0 else State.Active
        if replicas and not service.seen.endpoints:
            state, service.recovers = State.Waking, True  # no client waited for this start: it is not counted as a wake
        try:
            address = self._allocate(name)
        except NoIndexLeft:
            return
        service.record = Record(state, self._clock.now(), "seen for the first time", max(1, replicas or 0), address)
        self._index.note(name, service.record)
        self.save(name, service.record)

    def release(self, name: str, record: Record | None) -> bool:
        """Free the hold address of a removed service; return whether another service may be waiting for it."""
        if record and self._owners.get(record.hold_address) == name:
            del self._owners[record.hold_address]
        return len(self._owners) + 1 >= self._range.size  # at most one address is free

    def start_term(self) -> None:
        """Read what other leaders have saved, and which hold addresses their records have."""
        self._saved = self._store.records()
        services = self._index.services
        self._owners = {one.record.hold_address: name for name, one in services.items() if one.record}

    def mark_elected(self, since: float) -> None:
        """Apply the change of leaders to saved records of services that are not configured yet."""
        self._saved = {name: on_elected(record, None, since) for name, record in self._saved.items()}

    def usable(self) -> dict[str, Record]:
        """Return the saved records of which holders listen on the hold address."""
        index = self._range.index
        return {name: one for name, one in self._store.records().items() if index(one.hold_address) is not None}

    def _reassign(self, name: str, address: str) -> str:
        """Assign the same address if holders listen there and it is free; otherwise a new one. Raises `NoIndexLeft`."""
        is_ours = self._range.index(address) is not None and self._owners.setdefault(address, name) == name
        return address if is_ours else self._allocate(name)

    def _allocate(self, name: str) -> str:
        """Assign an address without a service. Raises `NoIndexLeft`, also if every address is in use.

        There are fewer addresses than indexes, so that addresses repeat.
        """
        if len(self._owners) >= self._range.size:
            raise NoIndexLeft
        while True:
            address = self._range.address(self._store.next_index())
            if self._owners.setdefault(address, name) == name:
                return address
