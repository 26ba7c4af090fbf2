"""Port for the storage of records, which outlives the process."""

from __future__ import annotations

from typing import Protocol

from reconciler.core.record import Record


class NoIndexLeft(Exception):
    """No reserved index is left; the engine retries when there are more (`allocate`)."""


class Store(Protocol):
    """Storage of records and of pauses, by service name."""

    def records(self) -> dict[str, Record]:
        """Return all saved records by service name."""

    def save(self, service: str, record: Record) -> None:
        """Save a record. Does not wait: the write has started when this method returns."""

    def forget(self, service: str) -> None:
        """Delete the record and the pause of a service."""

    def paused(self) -> frozenset[str]:
        """Return the names of the services that a person paused."""

    def pause(self, service: str, paused: bool) -> None:
        """Save that a person paused or resumed the service."""

    def next_index(self) -> int:
        """Return the next unused index for a hold address: 0, 1, 2, … Raises `NoIndexLeft`."""
