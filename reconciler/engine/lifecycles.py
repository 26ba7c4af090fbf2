"""Lifecycles in progress: samples and configurations become events of `core.lifecycle`, and stages become effects.

A service without a lifecycle here is Current. The cost of a sample does not depend on the number of those services.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Protocol

import structlog

from reconciler.core.lifecycle import (
    Block,
    Instant,
    Lifecycle,
    LifecycleEvent,
    RolloutEvidence,
    Stage,
    advance,
    deletion_blocker,
    removal_event,
    rollout_event,
)
from reconciler.core.reasons import Unknown
from reconciler.core.spec import Spec
from reconciler.core.traffic import Sample, evidence
from reconciler.engine.engine import Engine
from reconciler.engine.service import ManagedService
from reconciler.ports.clock import Clock

log = structlog.get_logger(__name__)


class Programs(Protocol):
    """The part of a backend that replaces programs."""

    def outdated(self) -> frozenset[str]: ...

    def restart(self, service: str) -> None: ...


class Lifecycles:
    """The lifecycles in progress. `expected` returns the Envoys that a sample must contain.

    Without `programs`, someone else replaces programs, as Kubernetes does.
    """

    def __init__(
        self,
        clock: Clock,
        engine: Engine,
        expected: Callable[[], frozenset[str]],
        programs: Programs | None = None,
    ) -> None:
        self._clock, self._engine, self._expected, self._programs = clock, engine, expected, programs
        self._lifecycles: dict[str, Lifecycle] = {}
        self.removed: dict[str, Spec] = {}
        """The removed services that may still have work in flight."""
        self._held: dict[str, int | None] = {}

    def stage(self, name: str) -> Stage:
        """Return the stage of a service."""
        return self._lifecycles[name].stage if name in self._lifecycles else Stage.Current

    def deletion_blocker(
        self, name: str, envoys: Collection[str], unknown: Unknown | None, is_missing: bool
    ) -> str | None:
        """Return why the object of a deleted service may not be removed yet, for people; None if it may.

        `envoys` and `unknown` are those of the cluster. `is_missing` means that its target does not exist.
        """
        service = self._engine.services.get(name)
        if service is None or service.record is None:
            return None  # no route ever led to its hold address
        if not (service.seen.held or envoys or unknown):
            return None  # there is no Envoy
        if unknown and not is_missing:
            return unknown.message  # a replica that this leader does not know yet may hold a client
        reason = deletion_blocker(self.stage(name), service.record, service.seen, is_missing, self._clock.now())
        return str(reason) if reason else None

    def configure(self, specs: Iterable[Spec]) -> None:
        """Apply a configuration; call it before the engine applies it."""
        configured, present = {spec.name: spec for spec in specs}, self._engine.services
        for name in present.keys() - configured.keys():
            if self._is_in_use(present[name]):
                self.removed[name] = present[name].spec
                self._apply(name, LifecycleEvent.ServiceRemoved)
            else:
                self._lifecycles.pop(name, None)
                self.removed.pop(name, None)
        for name, spec in configured.items():
            if spec.departing:
                self._apply(name, LifecycleEvent.DeletionRequested)
            elif name in self._lifecycles:
                self._apply(name, LifecycleEvent.ServiceConfigured)

    def before_sample(self) -> None:
        """Note the held connections, which the next sample counts as active."""
        services = self._engine.services
        self._held = {
            name: services[name].seen.held
            for name, lifecycle in self._lifecycles.items()
            if lifecycle.stage is Stage.Withdrawn and name in services
        }

    def sampled(self, sample: Sample) -> bool:
        """Apply a sample; return whether it ended a removal."""
        services = self._engine.services
        outdated = self._programs.outdated() if self._programs else frozenset()
        for name in (outdated | self._lifecycles.keys()) & services.keys():
            self._roll_out(name, services[name], sample, name in outdated)
        before = len(self.removed)
        for name, spec in list(self.removed.items()):
            found = evidence(sample, self._expected(), name)
            event = removal_event(self._lifecycles[name], spec, found, sample.taken_at, self._now())
            self._apply(name, event, found.uses if found else None)
        return len(self.removed) < before

    def _roll_out(self, name: str, service: ManagedService, sample: Sample, is_outdated: bool) -> None:
        known = RolloutEvidence(
            is_outdated,
            service.record.state if service.record else None,
            service.seen,
            evidence(sample, self._expected(), name),
            sample.taken_at,
            self._held.get(name),
        )
        self._apply(name, rollout_event(self._of(name), service.spec, known, self._now()))

    def _of(self, name: str) -> Lifecycle:
        return self._lifecycles.get(name) or Lifecycle(Stage.Current, self._now())

    def _now(self) -> Instant:
        return Instant(self._clock.now(), self._clock.ticks())

    def _is_in_use(self, service: ManagedService) -> bool:
        """Return whether a removed service may have work in flight, or connections to refuse."""
        seen = service.seen
        is_seen = bool(seen.endpoints or seen.held) or seen.replicas is None  # unknown is not idle
        return is_seen or self._of(service.spec.name).runs_earlier_program

    def _apply(self, name: str, event: LifecycleEvent | None, uses: int | None = None) -> None:
        if event is None:
            return
        before = self._of(name)
        after = advance(before, event, self._now(), uses)
        if after.stage in (Stage.Current, Stage.Ended):
            self._lifecycles.pop(name, None)
        else:
            self._lifecycles[name] = after
        if after.stage is not Stage.Removed:
            self.removed.pop(name, None)
        if event is LifecycleEvent.RemovalTimedOut:
            log.warning("removed although it may still be in use: its drainTimeout has passed", service=name)
        if after.stage is not before.stage:
            self._converge(name, before, after)

    def _converge(self, name: str, before: Lifecycle, after: Lifecycle) -> None:
        """Apply the effects of a new stage."""
        match after.stage:
            case Stage.Withdrawn:
                log.info("the program changed and the service is never idle: new connections wait", service=name)
                self._engine.block(name, Block.Marked)
            case Stage.Replacing if self._programs:
                log.info("nothing is in flight: replacing the program", service=name)
                self._programs.restart(name)
            case Stage.Outdated if before.stage is Stage.Withdrawn:
                log.warning("still in use after the longest wait: replacing the program later", service=name)
        if before.runs_earlier_program and not after.runs_earlier_program and after.stage is not Stage.Removed:
            self._engine.block(name, Block.Lifted)
