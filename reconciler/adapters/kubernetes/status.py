"""Records in the status of ScaledServices. Counterparts: `reconciler.ports.store`; `conditions.py`, which words them.

Rules: saying a thing only notes it, so that no wake waits for a write; what comes at once is written once, the newest
only. Only the leader writes. It is asked right before a write is sent, and a write names the version of the object that
it is about, so that one which was long on its way, from a leader that was, is refused by the API server.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import stamina
import structlog

from reconciler.adapters.kubernetes.api import MERGE_PATCH, Api, ApiError, Unreachable
from reconciler.adapters.kubernetes.conditions import NOTHING, Standing, change, record, status
from reconciler.adapters.kubernetes.entries import Problem
from reconciler.adapters.kubernetes.objects import decoder, path
from reconciler.adapters.kubernetes.refusals import CONFLICT, NOT_FOUND, cause, passes_or_conflicts
from reconciler.adapters.kubernetes.resources import API_VERSION, PLURAL, ScaledService
from reconciler.adapters.kubernetes.wanted import target_of
from reconciler.core.record import Record

log = structlog.get_logger(__name__)

WRITES_AT_ONCE = 8
_DECODE = decoder(ScaledService)


@dataclass(frozen=True, slots=True)
class Pace:
    """How patient the writing is, in seconds."""

    gather: float = 0.05
    """What is said within it is one write; and wakes, which are said in the same moment, go first."""
    attempts: int = 5
    first_wait: float = 0.1
    longest_wait: float = 2.0
    again: float = 10.0
    """After so many attempts others get their turn, and this one is tried again later."""


class StatusStore:
    """`items` is what an informer keeps, and must be complete before `records`; `leads` says whether to write.

    Numbers for hold addresses come from `next_index`: they belong to the leader, not to a service.
    """

    def __init__(
        self,
        api: Api,
        items: Mapping[str, ScaledService],
        leads: Callable[[], bool],
        next_index: Callable[[], int],
        now: Callable[[], float] = time.time,
        pace: Pace = Pace(),
    ) -> None:
        self._api, self._items, self._leads, self._next_index, self._now = api, items, leads, next_index, now
        self._pace = pace
        self._standings: dict[str, Standing] = {}
        self._pauses: dict[str, bool] = {}
        self._answered: dict[str, ScaledService] = {}
        """Objects as the API server gave them back, until the informer has them."""
        self._due: dict[str, None] = {}
        """In order."""
        self._busy: set[str] = set()
        self._failing: dict[str, str] = {}
        """Why a write does not go, by service."""
        self._leading = False
        self._noted = asyncio.Event()
        self._retries = stamina.AsyncRetryingCaller(
            attempts=pace.attempts,
            timeout=None,
            wait_initial=pace.first_wait,
            wait_max=pace.longest_wait,
            wait_jitter=pace.first_wait,
        ).on(passes_or_conflicts)

    # The port

    def records(self) -> dict[str, Record]:
        found = {name: record(item.status) for name, item in self._items.items()}
        restored = {name: one for name, one in found.items() if one}
        self._standings |= {name: replace(self._standing(name), record=one) for name, one in restored.items()}
        return restored

    def save(self, service: str, record: Record) -> None:
        self._say(service, replace(self._standing(service), record=record, heard=True))

    def forget(self, service: str) -> None:
        """The object is left as it is: either it is gone, or what it says of the past is still true."""
        self._standings.pop(service, None)
        self._pauses.pop(service, None)

    def paused(self) -> frozenset[str]:
        """None: whether a service is paused is part of its spec."""
        return frozenset()

    def pause(self, service: str, paused: bool) -> None:
        """Change the spec, whoever leads: a person asked for it."""
        self._pauses[service] = paused
        self._mark(service)

    def next_index(self) -> int:
        return self._next_index()

    # What else a status tells

    def set_problems(self, service: str, problems: Sequence[Problem], generation: int) -> None:
        """All that is wrong with what was asked in that generation of the object; nothing, when it is in force."""
        before = self._standing(service)
        heard = before.heard or bool(problems)
        self._say(service, replace(before, problems=tuple(problems), generation=generation, heard=heard))

    def set_seen(self, service: str, replicas: int | None, trouble: str | None) -> None:
        """How the target stands: `ports.backend.Running`'s words."""
        self._say(service, replace(self._standing(service), replicas=replicas, trouble=trouble, heard=True))

    def set_command(self, service: str, command: str) -> None:
        """That command, as the annotation says it, was carried out."""
        self._say(service, replace(self._standing(service), command=command, heard=True))

    def saw(self, service: str, item: ScaledService | None) -> None:
        """The informer has a new version of the object: somebody may have written into its status."""
        if item is None:
            self._answered.pop(service, None)
            if not self._leading:
                self.forget(service)
        elif service in self._standings:
            self._mark(service)

    # Writing

    def lead(self) -> None:
        """We lead from now on, and the engine has saved what it knows: write whatever differs."""
        self._leading = True
        for service in self._standings:
            self._mark(service)

    def follow(self) -> None:
        """Another one leads from now on: what is not written yet is its business."""
        self._leading = False

    async def run(self) -> None:
        """Write what is said, until cancelled."""
        slots = asyncio.Semaphore(WRITES_AT_ONCE)
        async with asyncio.TaskGroup() as writes:
            while True:
                await self._noted.wait()
                await asyncio.sleep(self._pace.gather)
                self._noted.clear()
                for service in [service for service in self._due if service not in self._busy]:
                    await slots.acquire()
                    self._due.pop(service, None)
                    self._busy.add(service)
                    writes.create_task(self._bring_about(service)).add_done_callback(lambda _: slots.release())

    async def flush(self, seconds: float) -> bool:
        """Wait until all that was said is written, at most so long; whether it is. `run` has to go on meanwhile."""
        try:
            async with asyncio.timeout(seconds):
                while self._due or self._busy:
                    await asyncio.sleep(self._pace.gather / 5)
        except TimeoutError:
            return False
        return not self._failing

    def _standing(self, service: str) -> Standing:
        return self._standings.get(service, NOTHING)

    def _say(self, service: str, standing: Standing) -> None:
        if self._standings.get(service) != standing:
            self._standings[service] = standing
            self._mark(service)

    def _mark(self, service: str) -> None:
        self._due[service] = None
        self._noted.set()

    async def _bring_about(self, service: str) -> None:
        try:
            await self._retries(self._write, service)
        except (ApiError, Unreachable, msgspec.DecodeError) as error:
            self._failed(service, error)
        else:
            self._failing.pop(service, None)
        finally:
            self._busy.discard(service)
            if service in self._due:
                self._noted.set()

    async def _write(self, service: str) -> None:
        """One attempt, at what is the newest by then. What is gone has nothing to be told."""
        item = self._latest(service)
        if item is None:
            return
        try:
            await self._write_to(item, service)
        except ApiError as error:
            if error.status != NOT_FOUND:
                raise

    async def _write_to(self, item: ScaledService, service: str) -> None:
        try:
            if service in self._pauses:
                await self._write_pause(item, service)
            elif changed := self._change(service, item):
                await self._patch(service, item, {"status": changed}, "status")
        except ApiError as error:
            if error.status == CONFLICT:  # somebody else changed it, and we have yet to hear of it
                self._answered[service] = _DECODE(await self._api.get(_path(item)))
            raise

    async def _write_pause(self, item: ScaledService, service: str) -> None:
        paused = self._pauses[service]
        await self._patch(service, item, {"spec": {"paused": paused}}, None)
        if self._pauses.get(service) is paused:
            del self._pauses[service]
        self._mark(service)

    def _change(self, service: str, item: ScaledService) -> dict[str, Any]:
        """What is to be written now; nothing, unless we lead."""
        standing = self._standings.get(service)
        if standing is None or not standing.heard or not self._leading:
            return {}
        target = target_of(item)
        changed = change(item.status, status(standing, item.status, self._now(), f"{target.kind}/{target.name}"))
        if changed and not self._leads():
            self._later(service)  # the lease may be ours again, without anybody having led in between
            return {}
        return changed

    async def _patch(self, service: str, item: ScaledService, body: dict[str, Any], subresource: str | None) -> None:
        about = {"metadata": {"resourceVersion": item.metadata.resource_version, "uid": item.metadata.uid}}
        answer = await self._api.patch(_path(item, subresource), body | about, MERGE_PATCH)
        self._answered[service] = _DECODE(answer)

    def _latest(self, service: str) -> ScaledService | None:
        """The newest version of the object that we know; None: there is none."""
        listed, answered = self._items.get(service), self._answered.get(service)
        if listed is None or answered is None:
            return listed
        if _version(listed) >= _version(answered):
            del self._answered[service]
            return listed
        return answered

    def _failed(self, service: str, error: Exception) -> None:
        why = cause(error)
        if why not in self._failing.values():
            log.error("a status cannot be written; it is tried again", service=service, error=str(error))
        self._failing[service] = why
        self._later(service)

    def _later(self, service: str) -> None:
        asyncio.get_running_loop().call_later(self._pace.again, self._mark, service)


def _path(item: ScaledService, subresource: str | None = None) -> str:
    return path(API_VERSION, PLURAL, item.metadata.namespace, item.metadata.name, subresource)


def _version(item: ScaledService) -> int:
    """Versions are opaque by contract and numbers in fact, of etcd; what is no number is taken for the newest."""
    version = item.metadata.resource_version
    return int(version) if version.isdigit() else 1 << 64
