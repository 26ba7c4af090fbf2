"""The engine, which turns observations into plans. It owns all records; no other component steps them.

Rule: single-threaded and synchronous; each input affects one service, at a cost that does not depend on the number of
sleeping services. `core` derives the next state, `plan` the desired levels, and adapters converge to them. A step has
one list of effects, which are executed in order and return states; an adapter never calls the engine from within one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from reconciler.core.busy import BusyAnswer, BusyUntil
from reconciler.core.events import Event, ProgramOutdated, ReplicasAtZero, SleepCommanded, WakeCommanded
from reconciler.core.follower import fenced, follower_event, follows_deadline, in_force
from reconciler.core.judge import due, is_question_due, judge
from reconciler.core.lifecycle import Block
from reconciler.core.machine import step
from reconciler.core.reasons import Unknown
from reconciler.core.record import Record, State, Transition
from reconciler.core.spec import Spec
from reconciler.core.traffic import NO_SAMPLE, Pace, Sample, Window
from reconciler.engine.history import History
from reconciler.engine.hold_addresses import HoldRange
from reconciler.engine.leadership import Leadership
from reconciler.engine.records import RecordKeeper
from reconciler.engine.sampling import RequestCounter
from reconciler.engine.service import ManagedService, ServiceIndex, TransitionListener
from reconciler.plan import AtLeast, Deadline, Plan, Route, followed, plan
from reconciler.ports.backend import Backend, WorkloadStatus
from reconciler.ports.clock import Clock
from reconciler.ports.holders import Holders, HoldOrder, HoldStatus
from reconciler.ports.replicas import RecordProgress, Replicas, SingleReplica
from reconciler.ports.router import Router, RouteState
from reconciler.ports.store import Store

Returned = WorkloadStatus | RouteState | HoldStatus
Effect = Callable[[], Returned | None]
"""A call of an adapter or of the listener; returns the state that it changed, if any."""
MAX_EVENTS_AT_ONCE = 16
"""Limit for the events after one observation, which are few; only an error in the table would exceed it."""


@dataclass(frozen=True, slots=True)
class Adapters:
    """The adapters that converge to the engine's plans."""

    backend: Backend
    router: Router
    holders: Holders
    arm: Callable[[str, Deadline | None], None]
    """Replace a service's deadline, after which the engine is called, perhaps late; None disarms it."""
    store: Store
    ask_for_sample: Callable[[float], None]
    """Request a sample at a time (seconds since the epoch), if none is due earlier; drains need it."""
    replicas: Replicas = field(default_factory=SingleReplica)
    ask_busy: Callable[[str, float], None] | None = None
    """Ask a service at a time (seconds since the epoch) whether it works; the answer is reported, also after an error.
    While the service is being asked, this has no effect."""


class Engine:
    """The engine of every service. `pace` is that of samples.

    Its clock is the wall clock, because records outlive the process and are compared with samples of other machines.
    After a step forward, all samples are old, and Idle services become Active. After a step back, times in the future
    become the present, so that a sleep is late by at most one `idleAfter`. Neither puts a service in use to sleep.
    """

    def __init__(self, clock: Clock, pace: Pace, hold_range: HoldRange, listener: TransitionListener) -> None:
        self._now = clock.now
        self.pace = pace
        self._listener = listener
        self._index = ServiceIndex()
        self.services: Mapping[str, ManagedService] = self._index.services
        self.history = History()
        self._records = RecordKeeper(clock, hold_range, self._index)
        self.leadership = Leadership(clock, self._index, self._records, self.history, listener)
        self._busy_until: dict[str, BusyUntil] = {}
        self.sample: Sample | None = None
        self.unknown: Unknown | None = NO_SAMPLE
        """Reason why usage is unknown by the latest sample, or None."""
        self._counter = RequestCounter(clock.now())
        self._returned: deque[Returned] = deque()

    def start(self, adapters: Adapters) -> None:
        """Restore the records. Must be called first."""
        self._adapters = adapters
        self._records.start(adapters.store)

    @property
    def synced(self) -> bool:
        """True if a route is known for every service."""
        return not self._index.unknown

    @property
    def leads(self) -> bool:
        """True if this replica leads."""
        return self.leadership.leads

    def record_progress(self, name: str) -> RecordProgress | None:
        """Return the progress of the leader's record of a service; None without that record."""
        service = self.services.get(name)
        if self.leads or service is None or service.record is None or service.shared is None:
            return None
        reason = in_force(service.record, service.shared, service.fence, service.seen)
        return RecordProgress(reason is None, reason or "")

    def configure(self, specs: Iterable[Spec]) -> None:
        """Replace the services. Those whose spec did not change are not touched."""
        paused = self._adapters.store.paused()
        configured = {spec.name: spec for spec in specs}
        wanted = {**configured, **{name: replace(configured[name], paused=True) for name in paused & configured.keys()}}
        are_awaited = [self._remove(name) for name in self.services.keys() - wanted.keys()]
        for name, spec in wanted.items():
            if name not in self.services:
                record = self._records.restore(name) if self.leads else None
                self._index.services[name] = service = ManagedService(spec, record)
                service.seen = replace(service.seen, busy_until=self._busy_until.get(name))
                self._index.note(name, record)
                self.leadership.adopt_known(name)
                self._settle(name)
            elif self.services[name].spec != spec:
                self.services[name].spec = spec
                self.services[name].route = ()  # ignore rules may have changed: send the route again
                self._settle(name)
            self.services[name].always_paused = configured[name].paused
        if any(are_awaited):
            self.allocate()

    def ran(self, running: WorkloadStatus) -> None:
        """Apply a report of the backend."""
        if service := self.services.get(running.service):
            service.saw_running(running)
            if service.record is None and self.leads:
                self._records.create(running.service, service)
            self._settle(running.service)

    def routed(self, state: RouteState) -> None:
        """Apply a report of the router."""
        if service := self.services.get(state.service):
            service.saw_route(state)
            self._settle(state.service)

    def held(self, held: HoldStatus) -> None:
        """Apply a report of the holders."""
        if service := self.services.get(held.service):
            unserved = service.wake and service.wake.total() is None
            service.saw_held(held)
            self._settle(held.service)
            if unserved and service.wake and service.wake.total() is not None:
                self._listener.woke(held.service, service.wake)

    def answered(self, name: str, answer: BusyAnswer) -> None:
        """Apply the answer of a busy check."""
        if service := self.services.get(name):
            service.seen = replace(service.seen, busy=answer.after(service.seen.busy))
            self._settle(name)

    def set_busy_until(self, name: str, until: BusyUntil | None) -> None:
        """Apply the time until which an application calls itself busy, also before its service is configured."""
        if until == self._busy_until.get(name):
            return
        if until is None:
            del self._busy_until[name]
        else:
            self._busy_until[name] = until
        if service := self.services.get(name):
            service.seen = replace(service.seen, busy_until=until)
            self._settle(name)

    def sampled(self, sample: Sample) -> None:
        """Apply a sample, unless it is a repetition. A sleeping service without use costs nothing."""
        if not self.leads or (self.sample and sample.envoys and sample.taken_at == self.sample.taken_at):
            return
        router = self._adapters.router
        window = Window(self.sample, sample, router.envoys(), router.away())
        self.sample = sample
        self.unknown = unknown = window.unknown() or self._adapters.replicas.unknown()
        used = self._counter.requests(sample)
        for name in self._index.awake | used.keys():
            if service := self.services.get(name):
                service.requests += used.get(name, 0)
                service.saw_traffic(window.judge(name, service.spec.idle_by, unknown))
                self._settle(name)

    def passed(self, name: str, deadline: Deadline) -> None:
        """Apply a passed deadline, unless the service has another one now."""
        if (service := self.services.get(name)) is None or service.deadline != deadline:
            return
        before, service.deadline = service.record, None  # it has passed: the next plan arms the alarm again
        self._settle(name)
        if before and service.record and service.record.since == before.since:
            now = max(self._now(), deadline.at)
            event = due(service.record, service.effective_spec, service.seen, deadline.event, now)
            if event and (self.leads or follows_deadline(service.record, event)):
                self._step(name, service, event, now)
                self._settle(name)

    def command(self, name: str, event: Event) -> None:
        """Apply a command of a person; a follower only wakes. Raises `KeyError` for an unknown service."""
        service, wakes = self.services[name], isinstance(event, WakeCommanded)
        record = service.record
        if record and (self.leads or (wakes and record.state is State.ScaledToZero)):
            now = self._now()
            if isinstance(event, SleepCommanded | ProgramOutdated):
                service.seen = replace(service.seen, sleep_commanded_at=now)
            self._step(name, service, event, now)
            self._settle(name)

    def pause(self, name: str, paused: bool) -> None:
        """Pause or resume a service. Raises `KeyError` for an unknown service."""
        service = self.services[name]
        self._adapters.store.pause(name, paused)
        service.spec = replace(service.spec, paused=paused or service.always_paused)
        if paused and self.leads and service.record and service.record.state is State.Draining:
            self._step(name, service, WakeCommanded("paused"), self._now())
        self._settle(name)

    def block(self, name: str, block: Block) -> None:
        """Block the present endpoints, or lift the block; if all are blocked, new connections are held."""
        if service := self.services.get(name):
            service.block(block)
            self._settle(name)

    def adopt(self, name: str, record: Record | None, fence: bool = False, cause: str = "") -> None:
        """Adopt the leader's record; None if the service is gone. With `fence`, do not step it until the next record.

        `cause` is the name of the event that led to its state; empty if the leader does not know it.
        """
        if self.leadership.adopt(name, record, fence, cause):
            self._settle(name)

    def lead(self, since: float) -> None:
        """Start to lead at `since` (seconds since the epoch); backends should have reported before."""
        self.sample, self.unknown, self._counter = None, NO_SAMPLE, RequestCounter(since)
        self._settle_each(self.leadership.lead(since))

    def follow(self) -> None:
        """Stop leading, or start as a follower."""
        self._settle_each(self.leadership.follow())

    def detach(self) -> None:
        """Continue without a leader, after so long that no leader can act on this replica's reports."""
        self._settle_each(self.leadership.detach())

    def allocate(self) -> None:
        """Retry services without a record, after new indexes for hold addresses are available."""
        self._settle_each(self.leadership.allocate())

    def _remove(self, name: str) -> bool:
        """Remove a service; return whether another one may be waiting for its hold address."""
        is_awaited = self._records.release(name, self._index.services.pop(name).record)
        self._index.drop(name)
        self._adapters.arm(name, None)
        self._adapters.holders.order(name, None)
        if self.leads:
            self._adapters.store.forget(name)
            self._adapters.replicas.share(name, None, False)
        self.history.forget(name)
        return is_awaited

    def _settle_each(self, changed: Iterable[str]) -> None:
        for name in changed:
            self._settle(name)

    def _settle(self, name: str) -> None:
        """Step until record and observation agree, then converge to the plan unless a step did so.

        A returned state is an observation, too: it is applied once the record is not in the middle of a step.
        """
        service = self.services[name]
        if record := service.set_back(self._now()):
            self._save(name, record)
        stepped = False
        for _ in range(MAX_EVENTS_AT_ONCE):
            if service.record is None:
                return
            now = self._now()
            if self.leads:
                event = judge(service.record, service.effective_spec, service.seen, now, self.pace.stale_after)
            else:
                event = follower_event(service.record, service.seen, service.fence)
            if event is None or not self._step(name, service, event, now):
                break
            stepped = True
        self._remember_replicas(name, service)
        if not (stepped or (self.leads and service.is_in_force())):
            self._execute(self._converge(name, service))
        if self.leads:
            self._request_evidence(name, service)
        while self._returned:
            self._apply(self._returned.popleft())

    def _request_evidence(self, name: str, service: ManagedService) -> None:
        """Request a sample, or ask the service whether it works without a client, if that decides its next step."""
        record, ask_busy = service.record, self._adapters.ask_busy
        assert record is not None
        if record.state is State.Draining and (at := service.lacks_sample_after()):
            self._adapters.ask_for_sample(at)
        if ask_busy and service.spec.has_busy_check:
            now = self._now()
            if is_question_due(record, service.effective_spec, service.seen, now):
                ask_busy(name, now)

    def _execute(self, effects: Iterable[Effect]) -> None:
        """Execute effects in order, and keep the states that they return."""
        self._returned.extend(state for effect in effects if (state := effect()))

    def _apply(self, returned: Returned) -> None:
        match returned:
            case WorkloadStatus():
                self.ran(returned)
            case RouteState():
                self.routed(returned)
            case HoldStatus():
                self.held(returned)

    def _step(self, name: str, service: ManagedService, event: Event, now: float) -> bool:
        """Apply one event and execute its effects; return whether it changed the record."""
        before = service.record
        assert before is not None
        after = step(before, event, now)
        falls_asleep = after.state is State.ScaledToZero and not isinstance(event, ReplicasAtZero)
        if after is before or (falls_asleep and self._adapters.replicas.unknown()):
            return False
        service.record = after
        effects: list[Effect] = []
        if after.state is not before.state:
            self._index.note(name, after)
            if wake := service.stepped(before, after, event.name):
                effects.append(partial(self._listener.woke, name, wake))
        save = partial(self._save, name, after)
        if after.state in (State.Waking, State.Active):  # a wake must not wait for the disk
            effects += (*self._converge(name, service), save)
        else:
            effects += (save, *self._converge(name, service))
        if before.state is not after.state or before.stalled != after.stalled:
            effects.append(partial(self._report, service, before, event, after, now))
        self._execute(effects)
        return True

    def _report(self, service: ManagedService, before: Record, event: Event, after: Record, now: float) -> None:
        """Report a transition, with the reference of the order that is in force after it."""
        reason = after.reason if after.state is not before.state else after.stalled
        order = service.ordered
        reference = order.reference if order and after.state is State.Waking else ""
        transition = Transition(service.spec.name, before.state, event.name, after.state, reason or "", now, reference)
        self.leadership.report(service, transition)

    def _remember_replicas(self, name: str, service: ManagedService) -> None:
        """Record the number of replicas that a wake restores: the last one observed before zero."""
        record, replicas = service.record, service.seen.replicas
        if not self.leads or record is None or record.state is State.Waking or record.zeroed:
            return
        if replicas and replicas != record.replicas:
            service.record = replace(record, replicas=replicas)
            self._save(name, service.record)

    def _converge(self, name: str, service: ManagedService) -> list[Effect]:
        """Return the effects that converge to the plan: a wake scales before all other effects, sleep after them."""
        record, now, adapters = service.record, self._now(), self._adapters
        assert record is not None
        wanted, fence = plan(record, service.effective_spec, now, self.pace.lag), fenced(record, service.seen)
        if not self.leads:
            wanted = followed(wanted, record, service.fence)
        order, pods = _order(service, record, wanted), service.seen.endpoints
        route = pods if pods and wanted.route is Route.PODS else (record.hold_address,)
        effects: list[Effect] = []
        if self.leads and (service.shared != record or service.fence != fence):
            effects.append(partial(self._share, name, service, record, fence))
        if service.ordered != order:
            effects.append(partial(self._send_order, name, service, order))
        if service.route != route:
            effects.append(partial(self._send_route, name, service, route, route == (record.hold_address,)))
        if wanted.deadline != service.deadline and not service.awaits(wanted.deadline, now):
            effects.append(partial(self._arm, name, service, wanted.deadline))
        scale = partial(adapters.backend.converge, name, wanted.scale)
        return [scale, *effects] if isinstance(wanted.scale, AtLeast) else [*effects, scale]

    def _share(self, name: str, service: ManagedService, record: Record, fence: bool) -> None:
        """Share a changed record with followers; this invalidates earlier acknowledgements."""
        service.shared, service.fence = record, fence
        if state := self._adapters.replicas.share(name, record, fence, service.cause):
            service.saw_route(state)

    def _send_order(self, name: str, service: ManagedService, order: HoldOrder) -> HoldStatus | None:
        service.note_order(order)
        return self._adapters.holders.order(name, order)

    def _send_route(self, name: str, service: ManagedService, route: tuple[str, ...], held: bool) -> RouteState | None:
        service.note_route(route)
        return self._adapters.router.route(name, route, held=held)

    def _arm(self, name: str, service: ManagedService, deadline: Deadline | None) -> None:
        service.deadline = deadline
        self._adapters.arm(name, deadline)

    def _save(self, name: str, record: Record) -> None:
        if self.leads:
            self._records.save(name, record)


def _order(service: ManagedService, record: Record, wanted: Plan) -> HoldOrder:
    """Return the order to holders that follows from a plan."""
    release_to = service.seen.endpoints if wanted.release else ()
    unseen = service.seen.diagnosis if service.seen.replicas is None else None
    reference = service.reference(release_to)
    return HoldOrder(service.spec, record.hold_address, release_to, record.diagnosis or unseen, reference)
