"""The simulated store of records: a database on one machine, or the status of an object in a cluster."""

from __future__ import annotations

from reconciler.core.record import Record
from reconciler.ports.store import NoIndexLeft


class Records:
    """The records, the pauses and the indexes that all replicas share."""

    def __init__(self) -> None:
        self.saved: dict[str, Record] = {}
        self.on_pause: set[str] = set()
        self.indexes, self.has_no_index = 0, False


class RecordStore:
    """The store of one replica."""

    def __init__(self, shared: Records, is_immediate: bool) -> None:
        """`is_immediate`: records are saved at once, and not only by `write`."""
        self._shared, self._is_immediate = shared, is_immediate
        self.unsaved: dict[str, Record] = {}

    def records(self) -> dict[str, Record]:
        return dict(self._shared.saved)

    def save(self, service: str, record: Record) -> None:
        (self._shared.saved if self._is_immediate else self.unsaved)[service] = record

    def forget(self, service: str) -> None:
        """Forget the record of a removed service; in a cluster, it goes with its object."""
        self.unsaved.pop(service, None)
        if self._is_immediate:
            self._shared.saved.pop(service, None)

    def latest(self, service: str) -> Record | None:
        """Return the record that is saved, or that waits to be written."""
        return self.unsaved.get(service) or self._shared.saved.get(service)

    def write(self, is_valid: bool) -> None:
        """Write the records that wait; those of a replica that does not lead are lost."""
        if is_valid:
            self._shared.saved |= self.unsaved
        self.unsaved.clear()

    def paused(self) -> frozenset[str]:
        return frozenset(self._shared.on_pause)

    def pause(self, service: str, paused: bool) -> None:
        (self._shared.on_pause.add if paused else self._shared.on_pause.discard)(service)

    def next_index(self) -> int:
        if self._shared.has_no_index:
            raise NoIndexLeft
        self._shared.indexes += 1
        return self._shared.indexes
