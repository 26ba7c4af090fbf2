"""Kubernetes Events (events.k8s.io/v1) about services. Counterpart: `event_messages.py`, which words them.

Rules: telling only notes it, and nothing waits for it. A repeat counts in the series of the first. What is too much is
dropped, the oldest first, and counted; warnings go first. Only the leader writes; nobody else's are kept for later.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import stamina
import structlog

from reconciler.core.reasons import Problem
from reconciler.kubernetes.client.api import MERGE_PATCH, Api
from reconciler.kubernetes.client.errors import (
    CONFLICT,
    NOT_FOUND,
    ApiError,
    Unreachable,
    error_key,
    is_namespace_terminating,
    is_transient,
)
from reconciler.kubernetes.config.service_config import SCALED_SERVICE, SERVICE
from reconciler.kubernetes.status.event_messages import (
    EventMessage,
    deletion_message,
    problem_message,
    shorten,
    transition_message,
    wake_message,
)
from reconciler.kubernetes.types.builtin import Service
from reconciler.kubernetes.types.objects import ObjectRef, micro_time, path
from reconciler.kubernetes.types.scaled_service import API_VERSION, KIND, ScaledService
from reconciler.ports.transitions import Transition

log = structlog.get_logger(__name__)

EVENTS = "events.k8s.io/v1"
REPORTER = "zenvoy.dev/reconciler"
LONGEST_NAME = 200
"""Of an object's name, of which its Events' names are made."""
MOST_SERIES = 4096
SERIES_SECONDS = 600.0
"""A repeat after a longer pause is an Event of its own."""

Key = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class EventLimits:
    """How much is written, and how patiently; in seconds."""

    waiting: int = 1000
    """The most that wait to be written."""
    gather: float = 0.25
    """What is told within it may become one; and wakes, which begin in the same moment, go first."""
    each_second: float = 10.0
    at_once: int = 50
    attempts: int = 8
    first_wait: float = 0.2
    longest_wait: float = 5.0


@dataclass(slots=True)
class _Waiting:
    regarding: ObjectRef
    note: EventMessage
    name: str
    """Of the Event, if it becomes one."""
    at: float
    """When it was told last, in seconds since the epoch."""
    count: int = 1


@dataclass(slots=True)
class _Written:
    path: str
    count: int
    at: float


@dataclass(slots=True)
class _Wrong:
    problems: tuple[Problem, ...] = ()
    told: tuple[Problem, ...] = ()


class EventRecorder:
    """`items` and `services` are what informers keep: whom an Event is about. `instance` is our pod's name."""

    def __init__(
        self,
        api: Api,
        items: Mapping[str, ScaledService],
        services: Mapping[str, Service],
        leads: Callable[[], bool],
        instance: str,
        now: Callable[[], float] = time.time,
        pace: EventLimits = EventLimits(),
    ) -> None:
        self._api, self._items, self._services = api, items, services
        self._leads, self._instance, self._now, self._pace = leads, instance, now, pace
        self.dropped = 0
        """How many were too much, ever."""
        self.failed = 0
        """How many the API server did not take, ever."""
        self._waiting: dict[Key, _Waiting] = {}
        self._written: dict[Key, _Written] = {}
        self._wrong: dict[str, _Wrong] = {}
        self._causes: set[str] = set()
        self._sending = False
        self._last_name = 0
        self._noted = asyncio.Event()
        self._bucket = _Bucket(pace.each_second, pace.at_once)
        self._retries = stamina.AsyncRetryingCaller(
            attempts=pace.attempts,
            timeout=None,
            wait_initial=pace.first_wait,
            wait_max=pace.longest_wait,
            wait_jitter=pace.first_wait,
        ).on(is_transient)

    def saw(self, transition: Transition, peer: str | None = None, envoy: str | None = None) -> None:
        """A service changed its state, or its wake stalled. `peer` and `envoy`: who asked, where it is known."""
        if regarding := self._regarding(transition.service):
            self.tell(regarding, transition_message(transition, peer, envoy))

    def woke(self, service: str, total: float | None, parts: Mapping[str, float], peer: str | None = None) -> None:
        """A wake is over; `total` and `parts` are seconds."""
        if regarding := self._regarding(service):
            self.tell(regarding, wake_message(total, parts, peer))

    def left(self, service: str, done: str, failed: bool) -> None:
        """A service is no longer served; `done` says what became of its replicas."""
        if regarding := self._regarding(service):
            self.tell(regarding, deletion_message(done, failed))

    def problems(self, name: str, problems: Sequence[Problem]) -> None:
        """All that is wrong now with the ScaledService and the Service of that name; what is new is told."""
        if not problems:
            self._wrong.pop(name, None)
            return
        wrong = self._wrong.setdefault(name, _Wrong())
        wrong.problems = tuple(problems)
        self._tell_of(name, wrong)

    def lead(self) -> None:
        """We lead from now on: tell what is wrong and was not told by us."""
        for name, wrong in self._wrong.items():
            self._tell_of(name, wrong)

    def _tell_of(self, name: str, wrong: _Wrong) -> None:
        if not self._leads():
            return
        about = [(problem, self._regarding(name, problem.on)) for problem in wrong.problems]
        for problem, regarding in about:
            if regarding and problem not in wrong.told:
                self.tell(regarding, problem_message(problem.reason, str(problem)))
        wrong.told = tuple(problem for problem, regarding in about if regarding)

    def tell(self, regarding: ObjectRef, note: EventMessage) -> None:
        """Write it when its turn comes; not at all, unless we lead."""
        if not self._leads():
            return
        key = (regarding.uid or regarding.name, note.reason, note.action, "" if note.like_others else note.text)
        again = self._waiting.get(key)
        if again:
            again.count, again.at = again.count + 1, self._now()
            return
        if len(self._waiting) >= self._pace.waiting:
            self._drop()
        now = self._now()
        self._waiting[key] = _Waiting(regarding, note, self._name(regarding, now), now)
        self._noted.set()

    async def run(self) -> None:
        """Write what is told, until cancelled."""
        while True:
            await self._noted.wait()
            await asyncio.sleep(self._pace.gather)
            while self._waiting:
                await self._bucket.take()
                key = self._next()
                self._sending = True
                try:
                    await self._bring(key, self._waiting.pop(key))
                finally:
                    self._sending = False
            self._noted.clear()

    async def flush(self, seconds: float) -> bool:
        """Wait until all that was told is written or given up, at most so long; whether it is."""
        try:
            async with asyncio.timeout(seconds):
                while self._waiting or self._sending:
                    await asyncio.sleep(0.01)
        except TimeoutError:
            return False
        return True

    def _regarding(self, name: str, kind: str = SCALED_SERVICE) -> ObjectRef | None:
        kept = self._services.get(name) if kind == SERVICE else self._items.get(name)
        if kept is None:
            return None
        about, of = kept.metadata, ("v1", SERVICE) if kind == SERVICE else (API_VERSION, KIND)
        return ObjectRef(*of, about.namespace, about.name, about.uid)

    def _next(self) -> Key:
        warnings = (key for key, waiting in self._waiting.items() if waiting.note.warning)
        return next(warnings, None) or next(iter(self._waiting))

    def _drop(self) -> None:
        oldest = next(iter(self._waiting))
        self.dropped += self._waiting.pop(oldest).count
        if "dropped" not in self._causes:
            self._causes.add("dropped")
            log.warning("too many Events to be written; the oldest are dropped", waiting=self._pace.waiting)

    async def _bring(self, key: Key, waiting: _Waiting) -> None:
        try:
            await self._retries(self._write, key, waiting)
        except (ApiError, Unreachable) as error:
            self.failed += 1
            if error_key(error) not in self._causes and not is_namespace_terminating(error):
                self._causes.add(error_key(error))
                log.error("an Event cannot be written", reason=waiting.note.reason, error=str(error))
        else:
            if not self._waiting:
                self._causes.clear()

    async def _write(self, key: Key, waiting: _Waiting) -> None:
        if not self._leads():
            return
        written = self._written.get(key)
        if written is None or waiting.at - written.at > SERIES_SECONDS:
            await self._write_first(key, waiting)
            return
        count = written.count + waiting.count
        try:
            await self._api.patch(written.path, {"series": _series(count, waiting.at)}, MERGE_PATCH)
        except ApiError as error:
            if error.status != NOT_FOUND:
                raise
            await self._write_first(key, waiting)  # Events last an hour, or as long as the cluster's owner likes
        else:
            self._written[key] = _Written(written.path, count, waiting.at)

    async def _write_first(self, key: Key, waiting: _Waiting) -> None:
        namespace = waiting.regarding.namespace
        try:
            await self._api.call("POST", path(EVENTS, "events", namespace), self._event(waiting))
        except ApiError as error:
            if error.status != CONFLICT:  # an attempt before this one took effect, though it was not answered
                raise
        self._written.pop(key, None)
        self._written[key] = _Written(path(EVENTS, "events", namespace, waiting.name), waiting.count, waiting.at)
        if len(self._written) > MOST_SERIES:
            del self._written[next(iter(self._written))]

    def _event(self, waiting: _Waiting) -> dict[str, Any]:
        regarding, note = waiting.regarding, waiting.note
        series = {"series": _series(waiting.count, waiting.at)} if waiting.count > 1 else {}
        return {
            "apiVersion": EVENTS,
            "kind": "Event",
            "metadata": {"name": waiting.name, "namespace": regarding.namespace},
            "eventTime": micro_time(waiting.at),
            "type": "Warning" if note.warning else "Normal",
            "reason": note.reason,
            "action": note.action,
            "note": shorten(note.text),
            "regarding": msgspec.to_builtins(regarding),
            "reportingController": REPORTER,
            "reportingInstance": self._instance,
            **series,
        }

    def _name(self, regarding: ObjectRef, at: float) -> str:
        """As other controllers name theirs: the object, and a moment. Always another one."""
        self._last_name = max(self._last_name + 1, int(at * 1e9))
        return f"{regarding.name[:LONGEST_NAME].rstrip('.-')}.{self._last_name:x}"


class _Bucket:
    """So many at once, and then so many each second."""

    def __init__(self, each_second: float, at_once: int) -> None:
        self._each_second, self._most = each_second, float(at_once)
        self._left, self._at = self._most, time.monotonic()

    async def take(self) -> None:
        now = time.monotonic()
        self._left = min(self._most, self._left + (now - self._at) * self._each_second) - 1
        self._at = now
        if self._left < 0:
            await asyncio.sleep(-self._left / self._each_second)


def _series(count: int, at: float) -> dict[str, Any]:
    return {"count": count, "lastObservedTime": micro_time(at)}
