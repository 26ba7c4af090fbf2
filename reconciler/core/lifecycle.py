"""The lifecycle of a service beside its sleep: removal, deletion, rollout, and terminating endpoints.

`LIFECYCLE` is a table like that of `machine.py`, without guards, of the stages of the service's configuration. A
removed service loses its routes, and its work in flight continues. A deleted one stays awake until no client needs it.
A changed program waits until the service is idle; if it never is, new connections are held until no client is connected
to the earlier program. `TerminatingEndpoints` exist and must not be used, because they are about to end.

Stages are never persisted: the configuration and the workloads show them again after a restart. Evidence becomes an
event in `removal_event` and `rollout_event`, which return None if the stage does not change. As everywhere, unknown is
not idle: an incomplete sample ends nothing.

Sans-IO and without a clock: `Instant` is an argument. Counterpart: `reconciler.engine.lifecycles`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

from reconciler.core.busy import blocker_of
from reconciler.core.judge import HOLDER_MISSING, SETTLE_SECONDS, Observed, route_blocker, waiting_clients
from reconciler.core.machine import UnlistedEvent
from reconciler.core.reasons import UNEXPLAINED, Blocker, Diagnosis, Reason
from reconciler.core.record import AWAKE_STATES, Record, State
from reconciler.core.spec import Spec
from reconciler.core.traffic import UsageEvidence

CLOSING_SECONDS = 0.5
"""Time after the removal or acknowledgement of a route in which a connection may still take the earlier one."""


class Instant(NamedTuple):
    """A moment on two clocks."""

    time: float
    """Seconds since the epoch, for comparison with samples and acknowledgements."""
    ticks: float
    """Seconds of the monotonic clock, for timeouts."""


class Stage(StrEnum):
    """A stage of the lifecycle."""

    Current = "Current"
    """Configured; what runs is what is configured."""
    Outdated = "Outdated"
    """An earlier program runs, and gets new connections."""
    Withdrawn = "Withdrawn"
    """An earlier program runs, and new connections are held."""
    Replacing = "Replacing"
    """The earlier program is being ended, and new connections are held."""
    Deleting = "Deleting"
    """Its object is being deleted; it stays awake."""
    Removed = "Removed"
    """Not configured; no route leads to it, and work in flight continues."""
    Ended = "Ended"
    """Not configured, and without work in flight: it may be stopped."""


Current, Outdated, Withdrawn, Replacing, Deleting, Removed, Ended = Stage


class LifecycleEvent(StrEnum):
    """An event of a lifecycle: a fact in the past tense."""

    ServiceConfigured = "ServiceConfigured"
    """The configuration has the service, and its object is not being deleted."""
    ServiceRemoved = "ServiceRemoved"
    """The configuration no longer has the service."""
    DeletionRequested = "DeletionRequested"
    """The object of the service is being deleted."""
    ProgramChanged = "ProgramChanged"
    """The configured program differs from the running one."""
    ProgramCurrent = "ProgramCurrent"
    """The configured program runs, or none does."""
    RolloutBecameDue = "RolloutBecameDue"
    """The service was not idle for its `idleAfter` since its program changed."""
    ConnectionsEnded = "ConnectionsEnded"
    """No client is connected to the earlier program."""
    RolloutTimedOut = "RolloutTimedOut"
    """New connections were held for as long as they may be."""
    UsesCounted = "UsesCounted"
    """A complete sample did not end the removal."""
    RemovalDrained = "RemovalDrained"
    """Two consecutive samples show nothing in flight and no use between them."""
    RemovalTimedOut = "RemovalTimedOut"
    """The service was in use, or not known to be unused, for its `drainTimeout` after the removal."""


_CONFIGURED = (Current, Outdated, Withdrawn, Replacing)
_NOT_ENDED = (*_CONFIGURED, Deleting, Removed)

LIFECYCLE: tuple[tuple[tuple[Stage, ...], LifecycleEvent, Stage | None], ...] = (
    # An object with the name of a deleted one may follow, and a removed service that is added again continues.
    (_CONFIGURED, LifecycleEvent.ServiceConfigured, None),
    ((Deleting, Removed), LifecycleEvent.ServiceConfigured, Current),
    (_NOT_ENDED, LifecycleEvent.DeletionRequested, Deleting),
    (_NOT_ENDED, LifecycleEvent.ServiceRemoved, Removed),
    # A service with an earlier program usually sleeps first, and wakes with the new one.
    ((Current,), LifecycleEvent.ProgramChanged, Outdated),
    ((Outdated, Withdrawn, Replacing), LifecycleEvent.ProgramChanged, None),
    (_CONFIGURED, LifecycleEvent.ProgramCurrent, Current),
    ((Outdated,), LifecycleEvent.RolloutBecameDue, Withdrawn),
    # Withdrawn: held connections go to the new program, or after a timeout to the earlier one.
    ((Withdrawn,), LifecycleEvent.ConnectionsEnded, Replacing),
    ((Withdrawn,), LifecycleEvent.RolloutTimedOut, Outdated),
    # Replacing has no timeout: the earlier program no longer accepts connections, so only its end is awaited.
    # Removed: work in flight continues.
    ((Removed,), LifecycleEvent.UsesCounted, Removed),
    ((Removed,), LifecycleEvent.RemovalDrained, Ended),
    ((Removed,), LifecycleEvent.RemovalTimedOut, Ended),
)
"""Stages, an event, and the next stage; None keeps the stage."""
_TARGETS = {(stage, event): target or stage for stages, event, target in LIFECYCLE for stage in stages}


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """The lifecycle of one service."""

    stage: Stage
    since: Instant
    """Moment at which the stage was entered."""
    uses: int | None = None
    """Uses of a removed service in the latest complete sample."""

    @property
    def runs_earlier_program(self) -> bool:
        """True while an earlier program may have clients although new connections are held."""
        return self.stage in (Withdrawn, Replacing)


def advance(lifecycle: Lifecycle, event: LifecycleEvent, now: Instant, uses: int | None = None) -> Lifecycle:
    """Return the lifecycle after `event`, which is applied at `now`; `uses` are those of `UsesCounted`.

    Returns the same object if nothing changed. Raises `UnlistedEvent` for a pair that the table does not list.
    """
    target = _TARGETS.get((lifecycle.stage, event))
    if target is None:
        raise UnlistedEvent(f"{event} is not listed for {lifecycle.stage}")
    if target is not lifecycle.stage:
        return Lifecycle(target, now)
    if event is LifecycleEvent.UsesCounted and uses != lifecycle.uses:
        return replace(lifecycle, uses=uses)
    return lifecycle


# Evidence


def removal_event(
    lifecycle: Lifecycle, spec: Spec, found: UsageEvidence | None, taken_at: float, now: Instant
) -> LifecycleEvent | None:
    """Return the event of a removed service after a sample that was taken at `taken_at`.

    `found` is the sample's evidence about the service; None if the sample is incomplete.
    """
    if lifecycle.stage is not Removed:
        return None
    if now.ticks >= lifecycle.since.ticks + spec.drain_timeout:
        return LifecycleEvent.RemovalTimedOut
    if found is None or taken_at < lifecycle.since.time + CLOSING_SECONDS:
        return None
    if found.in_flight(spec) or found.uses != lifecycle.uses:
        return LifecycleEvent.UsesCounted
    return LifecycleEvent.RemovalDrained


@dataclass(frozen=True, slots=True)
class RolloutEvidence:
    """The observations of one service that decide about its rollout."""

    is_outdated: bool
    """True if it runs an earlier program."""
    state: State | None
    """State of its record; None without a record."""
    seen: Observed
    found: UsageEvidence | None
    """The sample's evidence about the service; None if the sample is incomplete."""
    taken_at: float
    """Time of the sample, in seconds since the epoch."""
    held_before: int | None
    """Held connections before the sample, which counts them as active; None if unknown."""


def rollout_event(lifecycle: Lifecycle, spec: Spec, evidence: RolloutEvidence, now: Instant) -> LifecycleEvent | None:
    """Return the event of a configured service after a sample."""
    stage = lifecycle.stage
    if stage not in _CONFIGURED:
        return None
    if not evidence.is_outdated:
        return None if stage is Current else LifecycleEvent.ProgramCurrent
    if stage is Current:
        return LifecycleEvent.ProgramChanged
    if stage is Outdated:
        is_due = now.ticks >= lifecycle.since.ticks + spec.idle_after
        seen = evidence.seen
        works = blocker_of(spec, seen.busy, seen.busy_until, now.time) is not None  # its end would cut the work
        stays = spec.paused or works
        return LifecycleEvent.RolloutBecameDue if is_due and evidence.state is State.Active and not stays else None
    if stage is Withdrawn and _is_unused(lifecycle.since.time, evidence):
        return LifecycleEvent.ConnectionsEnded
    # The new program must also start before `hold_timeout`, when the connections are refused.
    if stage is Withdrawn and now.ticks >= lifecycle.since.ticks + min(spec.drain_timeout, spec.hold_timeout / 2):
        return LifecycleEvent.RolloutTimedOut
    return None


def _is_unused(withdrawn_at: float, evidence: RolloutEvidence) -> bool:
    """Return whether no client is connected to the earlier program: the active connections are the held ones."""
    seen, before, found = evidence.seen, evidence.held_before, evidence.found
    if before is None or seen.held is None or seen.relayed != 0 or found is None:
        return False
    acked = seen.route_acked_at
    if acked is None or acked < withdrawn_at or evidence.taken_at < acked + SETTLE_SECONDS:
        return False
    return found.active_connections <= min(before, seen.held)


def deletion_blocker(
    stage: Stage, record: Record, seen: Observed, is_missing: bool, now: float
) -> Blocker | Diagnosis | None:
    """Return why the object of a service may not be removed yet, or None if it may.

    It may be removed once every Envoy routes new connections to its endpoints and no connection is held. If none is
    held, it need not become ready while something prevents that. `is_missing` means that its target does not exist;
    `now` is seconds since the epoch.
    """
    if stage is not Deleting:
        return Blocker(Reason.DELETION_NOT_APPLIED, "its deletion is not in force yet")
    if record.state not in AWAKE_STATES or not seen.endpoints:
        hopeless = is_missing or (seen.diagnosis is not None and seen.held == 0)
        return None if hopeless else seen.diagnosis or UNEXPLAINED
    if seen.held is None:
        return HOLDER_MISSING
    if seen.held:
        return Blocker(Reason.CONNECTIONS_HELD, waiting_clients(seen.held))
    if seen.route_acked_at is None:
        return route_blocker(seen)
    if now < seen.route_acked_at + CLOSING_SECONDS:
        return Blocker(Reason.ROUTE_JUST_ACKNOWLEDGED, "the route was acknowledged just now")
    return None


# Terminating endpoints


class Block(StrEnum):
    """The endpoints of one service that are not used."""

    Lifted = "Lifted"
    """None; but terminating endpoints are used only if there is no other."""
    Every = "Every"
    """Each one: the leader scaled to zero, and did not observe zero replicas yet."""
    Marked = "Marked"
    """Those that existed when the block began; others are new."""


Lifted, Every, Marked = Block


NONE: frozenset[str] = frozenset()
"""Shared by all services without endpoints: each empty set would take 216 bytes."""


@dataclass(frozen=True, slots=True)
class TerminatingEndpoints:
    """The terminating endpoints of one service.

    A follower learns of a scale to zero from the leader, while its informers still show the endpoints; it must not
    connect a client to one of them. In a rollout, the endpoints of the earlier program are terminating.
    """

    block: Block = Lifted
    endpoints: frozenset[str] = NONE

    def blocked(self, block: Block, seen: tuple[str, ...]) -> TerminatingEndpoints:
        """Return the terminating endpoints from now on, while the endpoints `seen` exist."""
        if block is self.block:
            return self
        begins = self.block is Lifted
        return TerminatingEndpoints(block, (frozenset(seen) or NONE) if begins else self.endpoints)

    def observed(self, replicas: int | None, seen: tuple[str, ...]) -> TerminatingEndpoints:
        """Return the terminating endpoints after an observation. Those that no longer exist have ended."""
        endpoints = (frozenset(seen) if self.block is Every else self.endpoints.intersection(seen)) or NONE
        block = Marked if replicas == 0 and self.block is Every else self.block
        same = block is self.block and endpoints == self.endpoints
        return self if same else TerminatingEndpoints(block, endpoints)

    def usable(self, seen: tuple[str, ...]) -> tuple[str, ...]:
        """Return the endpoints that may be used."""
        if not self.endpoints:
            return seen
        left = tuple(endpoint for endpoint in seen if endpoint not in self.endpoints)
        return left if left or self.block is not Lifted else seen


NOT_TERMINATING = TerminatingEndpoints()
