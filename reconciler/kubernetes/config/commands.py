"""Commands to a service in an annotation: `wake@<time>` or `sleep@<time>`. Each value is executed once.

An executed value is recorded in the status, so that a restart or another leader does not execute it again. A wake needs
no leader; only the leader executes a sleep. The time makes values different; no clock is compared with it.
Counterparts: `zenvoy wake` and `zenvoy sleep`, which write the annotation, and `status/status_writer.py`, which records
it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog

from reconciler.core.events import Event
from reconciler.core.reasons import Problem, Reason
from reconciler.kubernetes.types.objects import RFC3339
from reconciler.kubernetes.types.scaled_service import COMMAND_ANNOTATION, ScaledService
from reconciler.ports.operations import COMMAND_EVENTS, Command

log = structlog.get_logger(__name__)

RIGHT = "write wake@<time> or sleep@<time>, as in wake@2026-11-23T10:00:00Z"


def pending_command(item: ScaledService) -> str | Problem | None:
    """Return the command of an object that was not executed yet, as in the annotation, or its problem."""
    value = item.metadata.annotations.get(COMMAND_ANNOTATION)
    if value is None or value == item.status.observed_command or item.metadata.deletion_timestamp:
        return None
    verb, _, time = value.partition("@")
    if verb not in COMMAND_EVENTS or not RFC3339.fullmatch(time):
        where = f"metadata.annotations[{COMMAND_ANNOTATION}]"
        return Problem(Reason.BAD_COMMAND, where, f"{value!r} is not a command", RIGHT, harmless=True)
    return value


class CommandController:
    """Executes commands once they can be executed.

    `obey` sends an event to the engine and returns whether a service with a record received it; `note` records an
    executed value; `leads` returns whether this replica executes sleeps.
    """

    def __init__(
        self,
        items: Mapping[str, ScaledService],
        leads: Callable[[], bool],
        obey: Callable[[str, Event], bool],
        note: Callable[[str, str], None],
    ) -> None:
        self._items, self._leads, self._obey, self._note = items, leads, obey, note
        self._open: dict[str, str] = {}
        """Commands that could not be executed yet."""
        self._done: dict[str, str] = {}
        """By service, the latest value executed here; the status may not have it yet."""
        self.problems: dict[str, Problem] = {}
        """The mistakes in commands, by service."""

    def saw(self, service: str, item: ScaledService | None) -> None:
        """Take a new version of an object, or None if it is gone."""
        found = pending_command(item) if item else None
        self._open.pop(service, None)
        self.problems.pop(service, None)
        if item is None:
            self._done.pop(service, None)
        elif isinstance(found, Problem):
            self.problems[service] = found
        elif found and self._done.get(service) != found:
            self._open[service] = found
            self._try(service, found)

    def again(self, service: str | None = None) -> None:
        """Retry open commands: those of a service that may have a record now, or all."""
        for name in [service] if service else list(self._open):
            if command := self._open.get(name):
                self._try(name, command)

    def lead(self) -> None:
        """Execute open sleeps and record executed values, as the new leader.

        A wake is executed again, because a follower may have failed to; repeating it is harmless.
        """
        for service, value in self._done.items():
            item = self._items.get(service)
            if not item or pending_command(item) != value:
                continue
            if _verb(value) == Command.WAKE:
                self._open[service] = value
            else:
                self._note(service, value)
        self.again()

    def _try(self, service: str, command: str) -> None:
        leads, verb = self._leads(), _verb(command)
        if not (leads or verb == Command.WAKE) or not self._obey(service, COMMAND_EVENTS[verb]):
            return
        del self._open[service]
        self._done[service] = command
        log.info("a command is carried out", service=service, command=command)
        if leads:
            self._note(service, command)


def _verb(command: str) -> str:
    return command.partition("@")[0]
