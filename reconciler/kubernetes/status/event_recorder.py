"""Recorder of Kubernetes Events (events.k8s.io/v1) about services.

Recording is asynchronous. A repetition is counted in the series of the first Event. If there are too many, the oldest
are dropped: those of the namespace that has most. Namespaces take turns, and warnings are written first in
each. Only the leader writes, and followers record nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
    ignoring,
    is_namespace_terminating,
    is_transient,
)
from reconciler.kubernetes.config.service_config import SCALED_SERVICE, SERVICE
from reconciler.kubernetes.status.event_messages import EVENTS, EventMessage, event_body, event_name
from reconciler.kubernetes.types.builtin import Service
from reconciler.kubernetes.types.objects import ObjectRef, micro_time, path
from reconciler.kubernetes.types.scaled_service import API_VERSION, KIND, ScaledService

log = structlog.get_logger(__name__)

MAX_SERIES = 4096
SERIES_SECONDS = 600.0
"""A repetition after a longer pause is a new Event."""

Key = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class EventLimits:
    """Rate, queue size, and retries of a recorder; durations in seconds."""

    waiting: int = 1000
    """Maximum number of queued Events."""
    gather: float = 0.25
    """Repetitions within this window are written together. It also lets wakes, which are urgent, go first."""
    each_second: float = 10.0
    at_once: int = 50
    attempts: int = 8
    first_wait: float = 0.2
    longest_wait: float = 5.0


@dataclass(slots=True)
class _Series:
    """One Event and its repetitions, queued or written."""

    regarding: ObjectRef
    note: EventMessage
    name: str
    """Name of the Event."""
    at: float
    """Time of the last occurrence, in seconds since the epoch."""
    count: int = 1


@dataclass(slots=True)
class _Problems:
    problems: tuple[Problem, ...] = ()
    recorded: frozenset[Problem] = frozenset()


class EventRecorder:
    """A recorder. `items` and `services` are the objects of informers; `instance` is the name of this pod."""

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
        self._waiting: dict[Key, _Series] = {}
        self._written: dict[Key, _Series] = {}
        self._turns: dict[str, int] = {}
        """Number of the latest turn of each namespace, the latest last."""
        self._turn = 0
        self._problems: dict[str, _Problems] = {}
        self._causes: set[str] = set()
        self._last_name = 0
        """The timestamp in the latest name; names are unique."""
        self._queued = asyncio.Event()
        """Set until all queued Events are written or given up."""
        self._bucket = _Bucket(pace.each_second, pace.at_once)
        self._retries = stamina.AsyncRetryingCaller(
            attempts=pace.attempts,
            timeout=None,
            wait_initial=pace.first_wait,
            wait_max=pace.longest_wait,
            wait_jitter=pace.first_wait,
        ).on(is_transient)

    def record(self, service: str, note: EventMessage) -> None:
        """Record an Event of a service."""
        if regarding := self._regarding(service):
            self.record_about(regarding, note)

    def problems(self, name: str, problems: Sequence[Problem]) -> None:
        """Set the problems of the ScaledService and the Service of a name, and record the new ones."""
        if not problems:
            self._problems.pop(name, None)
            return
        known = self._problems.setdefault(name, _Problems())
        known.problems = tuple(problems)
        self._record_new(name, known)

    def lead(self) -> None:
        """Record all problems that this replica has not recorded, because it leads now."""
        for name, known in self._problems.items():
            self._record_new(name, known)

    def _record_new(self, name: str, known: _Problems) -> None:
        if not self._leads():
            return
        about = [(problem, self._regarding(name, problem.on)) for problem in known.problems]
        for problem, regarding in about:
            if regarding and problem not in known.recorded:
                self.record_about(regarding, EventMessage(problem.reason, str(problem), "Configuring", warning=True))
        known.recorded = frozenset(problem for problem, regarding in about if regarding)

    def record_about(self, regarding: ObjectRef, note: EventMessage) -> None:
        """Queue an Event; do nothing unless this replica leads."""
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
        self._last_name = max(self._last_name + 1, int(now * 1e9))
        self._waiting[key] = _Series(regarding, note, event_name(regarding.name, self._last_name), now)
        self._queued.set()

    async def run(self) -> None:
        """Write queued Events until cancelled."""
        while True:
            await self._queued.wait()
            await asyncio.sleep(self._pace.gather)
            while self._waiting:
                await self._bucket.take()
                key = self._next()
                await self._write_retried(key, self._waiting.pop(key))
            self._queued.clear()

    async def flush(self, seconds: float) -> bool:
        """Wait at most `seconds` until all queued Events are written or given up; return whether they are."""
        try:
            async with asyncio.timeout(seconds):
                while self._queued.is_set():
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
        """Return the next Event, of the namespace whose turn was longest ago."""

        def order(key: Key) -> tuple[int, bool]:
            waiting = self._waiting[key]
            return self._turns.get(waiting.regarding.namespace, 0), not waiting.note.warning

        found = min(self._waiting, key=order)
        namespace = self._waiting[found].regarding.namespace
        self._turn += 1
        self._turns.pop(namespace, None)
        self._turns[namespace] = self._turn
        if len(self._turns) > MAX_SERIES:
            del self._turns[next(iter(self._turns))]
        return found

    def _drop(self) -> None:
        numbers = Counter(waiting.regarding.namespace for waiting in self._waiting.values())
        [(most, _)] = numbers.most_common(1)
        oldest = next(key for key, waiting in self._waiting.items() if waiting.regarding.namespace == most)
        del self._waiting[oldest]
        if "dropped" not in self._causes:
            self._causes.add("dropped")
            log.warning("too many Events, dropping the oldest", limit=self._pace.waiting)

    async def _write_retried(self, key: Key, waiting: _Series) -> None:
        try:
            await self._retries(self._write, key, waiting)
        except (ApiError, Unreachable) as error:
            if error_key(error) not in self._causes and not is_namespace_terminating(error):
                self._causes.add(error_key(error))
                log.error("failed to write an Event", reason=waiting.note.reason, error=str(error))
        else:
            if not self._waiting:
                self._causes.clear()

    async def _write(self, key: Key, waiting: _Series) -> None:
        if not self._leads():
            return
        written = self._written.get(key)
        if written is None or waiting.at - written.at > SERIES_SECONDS:
            await self._write_first(key, waiting)
            return
        count = written.count + waiting.count
        where = path(EVENTS, "events", written.regarding.namespace, written.name)
        try:
            await self._api.patch(where, {"series": _series_fields(count, waiting.at)}, MERGE_PATCH)
        except ApiError as error:
            if error.status != NOT_FOUND:
                raise
            await self._write_first(key, waiting)  # the first Event has expired
        else:
            written.count, written.at = count, waiting.at

    async def _write_first(self, key: Key, waiting: _Series) -> None:
        body = event_body(waiting.regarding, waiting.note, waiting.name, waiting.at, self._instance)
        if waiting.count > 1:
            body["series"] = _series_fields(waiting.count, waiting.at)
        with ignoring(CONFLICT):  # an earlier attempt took effect without an answer
            await self._api.call("POST", path(EVENTS, "events", waiting.regarding.namespace), body)
        self._written.pop(key, None)
        self._written[key] = waiting
        if len(self._written) > MAX_SERIES:
            del self._written[next(iter(self._written))]


class _Bucket:
    """A token bucket: a burst, and then a rate per second."""

    def __init__(self, each_second: float, at_once: int) -> None:
        self._each_second, self._most = each_second, float(at_once)
        self._left, self._at = self._most, time.monotonic()

    async def take(self) -> None:
        """Wait for a token."""
        now = time.monotonic()
        self._left = min(self._most, self._left + (now - self._at) * self._each_second) - 1
        self._at = now
        if self._left < 0:
            await asyncio.sleep(-self._left / self._each_second)


def _series_fields(count: int, at: float) -> dict[str, Any]:
    return {"count": count, "lastObservedTime": micro_time(at)}
