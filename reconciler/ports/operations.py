"""Port for queries and commands of people to a running reconciler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Protocol

from reconciler.core.events import Event, SleepCommanded, WakeCommanded


class Command(StrEnum):
    """A command of a person to a service."""

    WAKE = "wake"
    SLEEP = "sleep"
    PAUSE = "pause"
    RESUME = "resume"


COMMAND_EVENTS: Mapping[str, Event] = {
    Command.WAKE: WakeCommanded("requested by a user"),
    Command.SLEEP: SleepCommanded("requested by a user"),
}
"""The events of the commands that change the state of a service."""

View = Mapping[str, Any]
"""One service as JSON: at least name, state, since, reason, held, relayed, requests, deadline, lastWake."""


class Operations(Protocol):
    """Queries and commands."""

    def unready(self) -> str | None:
        """Return why clients are not served yet, or None if they are.

        In a cluster, a replica is ready once every route is known, so that Envoys receive responses. On one machine,
        every listener must also accept connections.
        """

    def services(self) -> Sequence[View]:
        """Return every service, sorted by name."""

    def service(self, name: str) -> View:
        """Return one service. Raises `KeyError` for an unknown name."""

    def explain(self, name: str) -> View:
        """Return one service with the evidence for its state and its last transitions. Raises `KeyError`."""

    def overview(self) -> View:
        """Return connections, the state of samples, and the leader, for `zenvoy doctor`."""

    def envoys(self) -> Sequence[View]:
        """Return the connected Envoys that this replica knows.

        Those that are connected to this replica include their last rejection. With several replicas, each Envoy has its
        `replica` (an IP address).
        """

    def holders(self) -> Sequence[str]:
        """Return the holders that are connected to any replica, as far as this replica knows."""

    def tell(self, name: str, command: Command) -> View:
        """Carry out a command; return the service after it. Raises `KeyError` for an unknown name."""
