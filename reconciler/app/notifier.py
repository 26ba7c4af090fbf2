"""What happens to a cluster's services, told to all who want to know: the log, metrics, Events, and each one's status.

Rule: nothing here decides, and nobody who waits for a service waits for it to be told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

import structlog

from reconciler.core.record import State
from reconciler.engine.service import Service
from reconciler.engine.wake import Wake
from reconciler.kubernetes.config.commands import CommandController
from reconciler.kubernetes.config.provider import Problems
from reconciler.kubernetes.config.service_config import Problem, rejected_by_envoy
from reconciler.kubernetes.status.event_recorder import EventRecorder
from reconciler.kubernetes.status.status_writer import StatusWriter
from reconciler.kubernetes.types.scaled_service import ScaledService
from reconciler.metrics import Metrics
from reconciler.ports.backend import Running
from reconciler.ports.transitions import Transition

log = structlog.get_logger()

CLIENT_SECONDS = 0.1
"""How long the Event of a wake waits for the holder to see who sent the request."""


class Teller:
    """`services` are the engine's, `items` what an informer keeps of the same."""

    def __init__(
        self, services: Callable[[], Mapping[str, Service]], items: Mapping[str, ScaledService], metrics: Metrics
    ) -> None:
        self._services, self._items, self._metrics = services, items, metrics
        self._troubled: set[str] = set()
        self._problems: Problems = {}
        self._rejected: dict[str, Problem] = {}
        self._asked: dict[str, tuple[asyncio.TimerHandle, Transition]] = {}
        """Wakes whose Event waits for the holder to see who sent the request."""

    def attach(self, store: StatusWriter, events: EventRecorder, commands: CommandController) -> None:
        """Must come before anything is told."""
        self._store, self._events, self._commands = store, events, commands

    def saw(self, transition: Transition) -> None:
        """Once what follows from it is on its way."""
        asyncio.get_running_loop().call_soon(self._tell, transition)

    def again(self, transitions: Iterable[Transition]) -> None:
        """These happened here while nobody led, when no Event is written; now we lead. So did wakes that are over."""
        for transition in transitions:
            if asked := self._asked.pop(transition.service, None):
                asked[0].cancel()
            self._event(transition)
            wake = self._wake(transition.service)
            if wake and wake.ready_at == transition.at and (total := wake.total()) is not None:
                self._events.woke(transition.service, total, wake.parts(), wake.peer)

    def close(self) -> None:
        """Tell what waits to be told."""
        for service in list(self._asked):
            self._tell_asked(service)

    def woke(self, service: str, wake: Wake) -> None:
        self._tell_asked(service)
        total, parts = wake.total(), wake.parts()
        self._metrics.woke(service, total, parts)
        self._events.woke(service, total, parts, wake.peer)
        log.info("woken", service=service, total=total, parts=parts, peer=wake.peer)

    def ran(self, running: Running) -> None:
        self._metrics.ran(running.service)
        self._store.set_seen(running.service, running.trouble)
        self._commands.again(running.service)

    def wrong(self, problems: Problems) -> None:
        """All that is wrong now with what was asked for."""
        self._problems = problems
        self._tell_wrong()

    def rejected(self, faults: Mapping[str, str]) -> None:
        """Report what Envoys reject of services now, by service."""
        known = {name: message for name, message in faults.items() if name in self._items}
        found = {name: rejected_by_envoy(message) for name, message in known.items()}
        for name in [name for name, problem in found.items() if problem != self._rejected.get(name)]:
            log.error("Envoy rejects a part of a service; the others are served", service=name, why=known[name])
        self._rejected = found
        self._tell_wrong()

    def _tell_wrong(self) -> None:
        troubled = self._problems.keys() | self._rejected.keys() | self._commands.troubled
        for name in self._troubled | troubled:
            rejected = [self._rejected[name]] if name in self._rejected else []
            found = (*self._problems.get(name, ()), *rejected, *self._commands.problems(name))
            item = self._items.get(name)
            self._store.set_problems(name, found, item.metadata.generation if item else 0)
            self._events.problems(name, found)
        self._troubled = set(troubled)

    def _tell_asked(self, service: str) -> None:
        if asked := self._asked.pop(service, None):
            asked[0].cancel()
            self._event(asked[1])

    def _wake(self, name: str) -> Wake | None:
        service = self._services().get(name)
        return service.wake if service else None

    def _event(self, transition: Transition) -> None:
        wake = self._wake(transition.service)
        self._events.saw(transition, wake.peer if wake else None, wake.via if wake else None)

    def _tell(self, transition: Transition) -> None:
        self._metrics.saw(transition)
        service = transition.service
        self._tell_asked(service)
        if transition.target is State.Waking and transition.source is State.ScaledToZero:
            due = asyncio.get_running_loop().call_later(CLIENT_SECONDS, self._tell_asked, service)
            self._asked[service] = due, transition
        else:
            self._event(transition)
        log.info(
            "transition",
            service=transition.service,
            source=transition.source.value,
            target=transition.target.value,
            reason=transition.reason,
            cause=transition.event,
            **({"reference": transition.reference} if transition.reference else {}),
        )
