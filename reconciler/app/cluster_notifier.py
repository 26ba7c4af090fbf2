"""Notification of people in a cluster: Kubernetes Events of transitions, and problems in each service's status.

`ObjectWriters` has everything that writes to ScaledServices.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

import structlog

from reconciler.core.events import Event
from reconciler.core.reasons import Problem
from reconciler.core.record import State, Transition
from reconciler.engine.engine import Engine
from reconciler.engine.service import ManagedService, Wake
from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.client.lease_lock import LeaderElector
from reconciler.kubernetes.config.commands import CommandController
from reconciler.kubernetes.config.provider import KubernetesProvider, Problems
from reconciler.kubernetes.config.service_config import rejected_by_envoy
from reconciler.kubernetes.status.event_messages import transition_message, wake_message
from reconciler.kubernetes.status.event_recorder import EventRecorder
from reconciler.kubernetes.status.finalizer import FinalizerController, NeededFor, Release
from reconciler.kubernetes.status.status_writer import StatusWriter
from reconciler.kubernetes.types.scaled_service import ScaledService

log = structlog.get_logger()

CLIENT_SECONDS = 0.1
"""Delay of the Event of a wake, in which the holder may report the client that sent the request."""


class EventNotifier:
    """Kubernetes Events of transitions and wakes."""

    def __init__(self, services: Mapping[str, ManagedService], events: EventRecorder) -> None:
        self._services, self._events = services, events
        self._delayed: dict[str, tuple[asyncio.TimerHandle, Transition]] = {}
        """Starts of wakes whose client is not known yet."""

    def saw(self, transition: Transition) -> None:
        """Write an Event; for the start of a wake once its client is known."""
        service = transition.service
        self._flush(service)
        if transition.target is State.Waking and transition.source is State.ScaledToZero:
            due = asyncio.get_running_loop().call_later(CLIENT_SECONDS, self._flush, service)
            self._delayed[service] = due, transition
        else:
            self._write(transition)

    def woke(self, service: str, wake: Wake) -> None:
        """Write the Event of a wake that is over."""
        self._flush(service)
        self._write_wake(service, wake, wake.total())

    def repeat(self, transitions: Iterable[Transition]) -> None:
        """Write Events of transitions that happened here before this replica was elected, and of wakes that ended."""
        for transition in transitions:
            if delayed := self._delayed.pop(transition.service, None):
                delayed[0].cancel()
            self._write(transition)
            wake = self._wake(transition.service)
            if wake and wake.ready_at == transition.at and (total := wake.total()) is not None:
                self._write_wake(transition.service, wake, total)

    def close(self) -> None:
        """Write all delayed Events."""
        for service in list(self._delayed):
            self._flush(service)

    def _flush(self, service: str) -> None:
        if delayed := self._delayed.pop(service, None):
            delayed[0].cancel()
            self._write(delayed[1])

    def _write(self, transition: Transition) -> None:
        wake = self._wake(transition.service)
        message = transition_message(transition, wake.peer if wake else None, wake.via if wake else None)
        self._events.record(transition.service, message)

    def _write_wake(self, service: str, wake: Wake, total: float | None) -> None:
        early = wake.early and wake.saved_seconds is None
        self._events.record(service, wake_message(total, wake.parts(), wake.peer, early))

    def _wake(self, name: str) -> Wake | None:
        service = self._services.get(name)
        return service.wake if service else None


class ProblemNotifier:
    """Problems of services, from their configuration, from Envoys and from commands, in status and Events."""

    def __init__(
        self,
        items: Mapping[str, ScaledService],
        store: StatusWriter,
        events: EventRecorder,
        commands: CommandController,
    ) -> None:
        """`items` are the ScaledServices of the informer."""
        self._items, self._store, self._events, self._commands = items, store, events, commands
        self._notified: set[str] = set()
        self._problems: Problems = {}
        self._rejected: dict[str, Problem] = {}

    def configured(self, problems: Problems) -> None:
        """Report the problems of the configuration, replacing earlier ones."""
        self._problems = problems
        self._notify()

    def rejected(self, faults: Mapping[str, str]) -> None:
        """Report what Envoys reject, by service, replacing what they rejected before."""
        known = {name: message for name, message in faults.items() if name in self._items}
        found = {name: rejected_by_envoy(message) for name, message in known.items()}
        for name in [name for name, problem in found.items() if problem != self._rejected.get(name)]:
            log.error(
                "Envoy rejected part of a service; other services are not affected", service=name, reason=known[name]
            )
        self._rejected = found
        self._notify()

    def _notify(self) -> None:
        single = (self._rejected, self._commands.problems)
        troubled = self._problems.keys() | self._rejected.keys() | self._commands.problems.keys()
        for name in self._notified | troubled:
            found = (*self._problems.get(name, ()), *(of[name] for of in single if name in of))
            self._store.set_problems(name, found)
            self._events.problems(name, found)
        self._notified = set(troubled)


class ObjectWriters:
    """The writers of status, Events, finalizers, and the results of commands. Only the leader writes."""

    def __init__(
        self,
        api: Api,
        provider: KubernetesProvider,
        elector: LeaderElector,
        pod_name: str,
        engine: Engine,
        needed_for: NeededFor,
        release: Release,
    ) -> None:
        items, sources, leads = provider.scaled_services.items, provider.services.items, elector.valid
        self._leads, self._engine = leads, engine
        self.store = StatusWriter(api, items, leads, elector.next_index)
        self._events = EventRecorder(api, items, sources, leads, pod_name)
        self.finalizers = FinalizerController(
            api, items, leads, self._events.record, needed_for=needed_for, release=release
        )
        self.commands = CommandController(items, leads, self._obey, self.store.set_command)
        self.transitions = EventNotifier(engine.services, self._events)
        self.problems = ProblemNotifier(items, self.store, self._events, self.commands)
        self.parts = (self.store.queue, self._events, self.finalizers.queue)
        """The parts that run until cancelled."""

    def saw(self, name: str, item: ScaledService | None) -> None:
        """Receive a changed ScaledService; None if it is gone."""
        self.store.saw(name, item)
        self.finalizers.saw(name, item)
        self.commands.saw(name, item)

    def lead(self) -> None:
        """Write everything again, as the new leader."""
        self.store.lead()
        self._events.lead()
        self.finalizers.lead()
        self.commands.lead()

    def _obey(self, name: str, event: Event) -> bool:
        """Carry out a command; return False for a service without a record."""
        service = self._engine.services.get(name)
        if service is None or service.record is None:
            return False
        self._engine.command(name, event)
        return True

    async def close(self, seconds: float) -> None:
        """Write what is pending, if this replica leads."""
        self.transitions.close()
        if self._leads():
            await asyncio.gather(self.store.queue.drain(seconds), self._events.flush(seconds))
