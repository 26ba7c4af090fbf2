"""Rollout of a changed program of a service that is never idle, and so never wakes with the new program.

A service that was not idle for `idleAfter` is withdrawn: its endpoints count as lost, so that its state is Waking and
new connections are held, while connections in flight continue. When nothing is in flight, the program is replaced, and
held connections are released to the new one. If that takes longer than `patience`, they are released to the old one,
and the rollout is retried later. No connection is cut or refused.

Connections in flight are those of Envoys to the service, without the held ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import structlog

from reconciler.core.judge import SETTLE_SECONDS
from reconciler.core.record import State
from reconciler.core.spec import Spec
from reconciler.core.traffic import Sample, evidence
from reconciler.engine.service import Service

log = structlog.get_logger(__name__)


def patience(spec: Spec) -> float:
    """Return the seconds for which new connections may wait for those in flight.

    The new program must also start before `hold_timeout`, when the connections are refused.
    """
    return min(spec.drain_timeout, spec.hold_timeout / 2)


class Programs(Protocol):
    """The part of the backend that replaces programs."""

    def outdated(self) -> frozenset[str]: ...

    def withdraw(self, service: str) -> None: ...

    def restore(self, service: str) -> None: ...

    def restart(self, service: str) -> None: ...


class Renewal:
    """Rollouts in progress.

    `now` is seconds since the epoch, for comparison with acknowledgements; `ticks` is the monotonic clock for
    timeouts; `expected` returns the Envoys that a sample must contain.
    """

    def __init__(
        self,
        now: Callable[[], float],
        ticks: Callable[[], float],
        programs: Programs,
        services: Mapping[str, Service],
        expected: Callable[[], frozenset[str]],
    ) -> None:
        self._now, self._ticks, self._programs = now, ticks, programs
        self._services, self._expected = services, expected
        self._since: dict[str, float] = {}
        """Time at which each service was first outdated, or its rollout last failed; in ticks."""
        self._withdrawn: dict[str, tuple[float, float]] = {}
        """Time of withdrawal, in seconds since the epoch and in ticks."""
        self._held: dict[str, int | None] = {}

    def look(self) -> None:
        """Note the held connections before a sample, which counts them as active."""
        self._held = {name: self._services[name].seen.held for name in self._withdrawn if name in self._services}

    def sampled(self, sample: Sample) -> None:
        """Apply a sample: start, complete or postpone rollouts."""
        outdated = self._programs.outdated() & self._services.keys()
        ticks = self._ticks()
        self._since = {name: self._since.get(name, ticks) for name in outdated}
        self._withdrawn = {name: since for name, since in self._withdrawn.items() if name in outdated}
        for name in outdated:
            service = self._services[name]
            if name in self._withdrawn:
                self._go_on(name, service, sample)
            elif self._is_due(name, service):
                log.info("its program changed, and it is never idle: new connections wait", service=name)
                self._withdrawn[name] = self._now(), ticks
                self._programs.withdraw(name)

    def _is_due(self, name: str, service: Service) -> bool:
        active = service.record is not None and service.record.state is State.Active
        return active and not service.spec.paused and self._ticks() >= self._since[name] + service.spec.idle_after

    def _go_on(self, name: str, service: Service, sample: Sample) -> None:
        if self._is_free(name, service, sample):
            del self._withdrawn[name]
            log.info("nothing is in flight: its program is replaced", service=name)
            self._programs.restart(name)
        elif self._ticks() >= self._withdrawn[name][1] + patience(service.spec):
            del self._withdrawn[name]
            self._since[name] = self._ticks()
            log.warning("in use all the time that others may wait: its program is replaced later", service=name)
            self._programs.restore(name)

    def _is_free(self, name: str, service: Service, sample: Sample) -> bool:
        """Return whether no client is connected to the running program."""
        held, seen, found = self._held.get(name), service.seen, evidence(sample, self._expected(), name)
        if held is None or seen.relayed != 0 or found is None:
            return False
        acked = seen.route_acked_at
        if acked is None or acked < self._withdrawn[name][0] or sample.taken_at < acked + SETTLE_SECONDS:
            return False
        return found.active_connections <= held
