"""Where records outlive the process."""

from __future__ import annotations

from typing import Protocol

from reconciler.core.record import Record


class NoIndexLeft(Exception):
    """None of the numbers that were set aside is left; the engine asks again when it hears of more (`allocate`)."""


class Store(Protocol):
    """Keeps records by service name, and which services a person paused."""

    def records(self) -> dict[str, Record]:
        """Everything that was saved."""

    def save(self, service: str, record: Record) -> None:
        """Keep this record. Never waits; it is on its way to the disk when this returns."""

    def forget(self, service: str) -> None:
        """Drop what is known of the service."""

    def paused(self) -> frozenset[str]:
        """The services that a person paused."""

    def pause(self, service: str, paused: bool) -> None:
        """Remember that a person paused, or resumed, the service."""

    def next_index(self) -> int:
        """A number that was never given out before: 0, 1, 2, …; hold addresses are made of it. Raises `NoIndexLeft`."""
