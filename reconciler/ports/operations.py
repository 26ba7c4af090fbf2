"""Queries and commands of people to a running reconciler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Protocol


class Command(StrEnum):
    """A command of a person to a service."""

    WAKE = "wake"
    SLEEP = "sleep"
    PAUSE = "pause"
    RESUME = "resume"


View = Mapping[str, Any]
"""One service as JSON: at least name, state, since, reason, held, relayed, requests, deadline, lastWake."""


class Operations(Protocol):
    """Answers queries and carries out commands."""

    def ready(self) -> bool:
        """Return whether Envoys are answered: every route is known."""

    def services(self) -> Sequence[View]:
        """Return every service, sorted by name."""

    def service(self, name: str) -> View:
        """One service. Raises `KeyError` when there is none of that name."""

    def explain(self, name: str) -> View:
        """One service with the evidence for its state, and its last transitions. Raises `KeyError` likewise."""

    def world(self) -> View:
        """Return connections, the state of samples, and the leader, for `zenvoy doctor`."""

    def envoys(self) -> Sequence[View]:
        """The connected Envoys: those that are connected here with what they rejected last, and where there are several
        replicas each with its `replica` (an IP address), as far as is known here."""

    def holders(self) -> Sequence[str]:
        """The connected holders, to whichever replica, as far as is known here."""

    def tell(self, name: str, command: Command) -> View:
        """Carry the command out; the service as it then is. Raises `KeyError` when there is none of that name."""
