"""Services whose program changed while they are in use all the time, so that they never sleep and wake as the new one.

One that was not idle for all of `idleAfter` is withdrawn: it counts as lost, so that its state is Waking and new
connections are held, while those in flight go on. When nothing is in flight any more the program is replaced, and those
who wait are let through to the new one. When that takes longer than `patience` they are let through to the old one, and
it is tried again later: nothing is ever cut, and nobody refused.

What is in flight is what Envoys are connected to, without those connections that holders keep waiting.
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
    """Seconds that new connections may wait for those in flight: the new program has to start, too, before
    `hold_timeout` refuses them."""
    return min(spec.drain_timeout, spec.hold_timeout / 2)


class Programs(Protocol):
    """The backend of the services."""

    def outdated(self) -> frozenset[str]: ...

    def withdraw(self, service: str) -> None: ...

    def restore(self, service: str) -> None: ...

    def restart(self, service: str) -> None: ...


class Renewal:
    """`now` is seconds since the epoch, which are compared with those of acknowledgements; `ticks` are seconds that
    nobody can set, by which it is waited; `expected` are the Envoys that must be in a sample."""

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
        """When each outdated service was seen to be, or was last tried in vain; in ticks."""
        self._withdrawn: dict[str, tuple[float, float]] = {}
        """Time of withdrawal, in seconds since the epoch and in ticks."""
        self._held: dict[str, int | None] = {}

    def look(self) -> None:
        """A sample is about to be taken: who waits now is among those that it counts."""
        self._held = {name: self._services[name].seen.held for name in self._withdrawn if name in self._services}

    def sampled(self, sample: Sample) -> None:
        """Go on with every one."""
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
