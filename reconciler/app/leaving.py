"""Removal of services from the configuration while they run: their routes are gone; work in flight continues.

A removal ends when two consecutive samples after the removal of the route show nothing in flight and no new use, and
at the latest after `drainTimeout`. A service that did not run but held connections has refusals in flight.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import structlog

from reconciler.core.spec import Spec
from reconciler.core.traffic import Sample, evidence
from reconciler.engine.service import Service

log = structlog.get_logger(__name__)

CLOSING_SECONDS = 0.5
"""Time for Envoys to remove the route; samples before its end do not count."""


@dataclass(slots=True)
class _One:
    spec: Spec
    since: float
    """In seconds since the epoch."""
    ticks: float
    """The same time on the monotonic clock."""
    uses: int | None = None
    """Uses of the service in the previous sample."""


class Leaving:
    """Removals in progress.

    `now` is seconds since the epoch, for comparison with samples; `ticks` is the monotonic clock for timeouts;
    `expected` returns the Envoys that a sample must contain.
    """

    def __init__(
        self, now: Callable[[], float], ticks: Callable[[], float], expected: Callable[[], frozenset[str]]
    ) -> None:
        self._now, self._ticks, self._expected = now, ticks, expected
        self._ones: dict[str, _One] = {}

    @property
    def specs(self) -> list[Spec]:
        return [one.spec for one in self._ones.values()]

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._ones)

    def configure(self, before: Mapping[str, Service], names: Collection[str]) -> None:
        """Start and cancel removals after the configuration changed from `before` to `names`."""
        for name in names:
            self._ones.pop(name, None)
        for name in before.keys() - set(names):
            if before[name].seen.endpoints or before[name].seen.held:
                self._ones[name] = _One(before[name].spec, self._now(), self._ticks())

    def sampled(self, sample: Sample) -> bool:
        """Apply a sample; return whether it ended a removal."""
        over = [name for name, one in self._ones.items() if self._is_over(one, sample)]
        for name in over:
            del self._ones[name]
        return bool(over)

    def _is_over(self, one: _One, sample: Sample) -> bool:
        if self._ticks() >= one.ticks + one.spec.drain_timeout:
            log.warning("taken out, and not known to be unused for all of drainTimeout", service=one.spec.name)
            return True
        found = evidence(sample, self._expected(), one.spec.name)
        if found is None or sample.taken_at < one.since + CLOSING_SECONDS:
            return False
        before, one.uses = one.uses, found.uses
        return not found.in_flight(one.spec) and found.uses == before
