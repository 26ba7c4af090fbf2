"""Updates of records: numbered and sent by the leader, received by followers, which report on them. No I/O."""

from __future__ import annotations

from collections.abc import Callable

from reconciler.core.record import Record
from reconciler.replication.messages import RecordUpdate, Report


class RecordUpdates:
    """The latest update of each service: sent as leader, received as follower."""

    def __init__(self) -> None:
        self.latest: dict[str, RecordUpdate] = {}
        self._version = 0
        self.on_update: Callable[[str], None] = lambda service: None
        """Called when the leader's record of a service changed."""
        self.on_report: Callable[[str], None] = lambda service: None
        """Called when this follower's report on a service changed."""

    def send(self, service: str, record: Record | None, fence: bool, cause: str) -> None:
        """Make a new update, as leader; None if the service is gone."""
        self._version += 1
        if record is None:
            self.latest.pop(service, None)
        else:
            self.latest[service] = RecordUpdate(service, self._version, record, fence, cause)
        self.on_update(service)

    def add(self, update: RecordUpdate) -> None:
        """Take an update before the engine adopts it. Its version is not in force until the engine has adopted it."""
        self.latest[update.service] = update
        self.on_report(update.service)

    def drop(self, service: str) -> None:
        """Remove a service that the leader no longer has."""
        self.latest.pop(service, None)

    def clear(self) -> None:
        """Remove all: another leader has versions of its own."""
        self.latest.clear()

    def was_sent(self, report: Report) -> bool:
        """Return whether the update of a report may have been sent."""
        return report.service in self.latest and report.version <= self._version
