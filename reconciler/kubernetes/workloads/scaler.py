"""One target: what its services want of it, and the calls that bring it about.

Rules:
- A wake goes out at once, whatever is believed of the number: it changes zero only. It is tried until it is not wanted.
  Only who does not lead looks first whether the leader, who wants the same, has done it.
- It sleeps when all its services want that, and `may_sleep` says so right before each attempt. The patch names the
  version that was observed. When somebody has changed the number meanwhile, that is said, and the new number is put to
  zero if that is still wanted: whoever wants it awake says so by using it, or by pausing.
- Once it was woken, the number is its owner's: an HPA's, KEDA's, a person's.
Counterparts: `target_observer.py`, `scale.py` (patches), `wake_client.py` (how they are sent), `backend.py`.
"""

from __future__ import annotations

import asyncio
import time

import msgspec
import structlog

from reconciler.kubernetes.client.api import JSON_PATCH
from reconciler.kubernetes.client.discovery import ScalableResource
from reconciler.kubernetes.client.errors import (
    CONFLICT,
    INVALID,
    NOT_FOUND,
    ApiError,
    Unreachable,
    is_transient_or_conflict,
)
from reconciler.kubernetes.types.target import Target
from reconciler.kubernetes.workloads import scale, wake_client
from reconciler.kubernetes.workloads.scale import ObservedScale
from reconciler.kubernetes.workloads.target_observer import TargetObserver, TargetOwner, Task
from reconciler.plan import AtLeast, Scale, Zero

log = structlog.get_logger()

PATIENCE_SECONDS = 1.0
"""A wake that fails for as long as this, by a fault that may pass, is trouble."""
HEAD_START_SECONDS = 0.05
"""What a leader has, in which its wake is mostly seen: two replicas that send each wake would be twice the calls."""
PROVEN_SECONDS = 5.0
"""A wake that is undone sooner is repeated with longer and longer pauses: somebody else wants zero as much as we do."""


class TargetScaler(TargetObserver):
    """One target. Its calls are made from tasks of its own; nothing is raised out of any method."""

    __slots__ = ("_news", "_rounds", "_sleeping", "_waking", "_wants", "_woken_ticks", "in_doubt", "woken_at")

    def __init__(self, ref: Target, owner: TargetOwner) -> None:
        super().__init__(ref, owner)
        self.woken_at: float | None = None
        """When the latest wake of ours was answered, in seconds since the epoch."""
        self.in_doubt = False
        """A patch to zero is on its way, and may or may not take effect."""
        self._wants: dict[str, Scale] = {}
        self._waking: Task | None = None
        self._sleeping: Task | None = None
        self._news = asyncio.Event()
        self._rounds = wake_client.backoff()
        self._woken_ticks = 0.0

    @property
    def services(self) -> tuple[str, ...]:
        return tuple(self._wants)

    @property
    def least(self) -> int | None:
        """The replicas that a wake asks for; None when none is wanted."""
        return max((one.replicas for one in self._wants.values() if isinstance(one, AtLeast)), default=None)

    @property
    def is_unwanted(self) -> bool:
        return bool(self._wants) and all(isinstance(one, Zero) for one in self._wants.values())

    def set_desired(self, service: str, wanted: Scale) -> None:
        """This is what the service wants of it from now on."""
        before = self._wants.get(service)
        self._wants[service] = wanted
        self._news.set()
        if isinstance(wanted, AtLeast) and not isinstance(before, AtLeast):
            self._rounds, self._woken_ticks = wake_client.backoff(), 0.0
            self._wake()
        elif self.is_unwanted:
            self._sleep()
        elif not any(self._wants.values()):
            self.trouble = self._missing  # whatever could not be done is not wanted any more

    def leave(self, service: str) -> None:
        """The service is no more, or has another target."""
        self._wants.pop(service, None)
        self._news.set()
        if self.is_unwanted:
            self._sleep()

    @property
    def sleeping(self) -> asyncio.Task[None] | None:
        """What scales it to zero, while something does."""
        return self._sleeping

    def close(self) -> None:
        """Leave it as it is."""
        self._closed = True
        for task in (self._waking, self._sleeping, self._looking):
            if task is not None:
                task.cancel()

    def found(self, kind: ScalableResource, seen: ObservedScale | None) -> None:
        self._news.set()
        super().found(kind, seen)

    def _act(self) -> None:
        if self._closed or self._path is None:
            return
        replicas = self.seen.replicas if self.seen else None
        if self.least is not None and not replicas:
            self._wake()
        elif self.is_unwanted and replicas != 0:
            self._sleep()

    def _wake(self) -> None:
        if self._waking is None and self._path is not None and not self._closed:
            self._waking = self._owner.spawn(self._until_awake(), f"wake of {self.ref}")
            self._waking.add_done_callback(self._woke)

    def _woke(self, done: Task) -> None:
        self._waking = None
        if not done.cancelled() and not done.exception() and self.seen:
            self._act()

    async def _until_awake(self) -> None:
        if self._woken_ticks and time.monotonic() - self._woken_ticks < PROVEN_SECONDS:
            await asyncio.sleep(next(self._rounds))
        if not self._owner.leads() and not self._has_replicas:
            await asyncio.sleep(HEAD_START_SECONDS)
            if self._has_replicas:  # what was believed before may be long past, but this is news
                return
        began, refused, unanswered = time.monotonic(), list[ApiError](), 0
        for pause in wake_client.backoff():
            self._news.clear()
            least, path = self.least, self._path
            if least is None or path is None:
                return
            wake, timeout = scale.WAKES[len(refused)](least), wake_client.wake_timeout(unanswered)
            try:
                answer = scale.parse_scale(await self._owner.urgent.patch(path, wake, timeout), self.ref.key)
            except ApiError as error:
                if error.status == INVALID and await self._is_awake(timeout):
                    return
                if error.status == INVALID and len(refused) + 1 < len(scale.WAKES):
                    refused.append(error)  # zero may be written in another way; else, this is the error that counts
                    continue
                if not is_transient_or_conflict(error):
                    self._fail(refused.pop(0) if refused else error)
                    pause = wake_client.LONGEST_PAUSE_SECONDS
                elif time.monotonic() - began > PATIENCE_SECONDS:
                    self._fail(error)
            except (Unreachable, msgspec.DecodeError) as fault:
                unanswered += 1
                if time.monotonic() - began > PATIENCE_SECONDS:
                    self._fail(fault if isinstance(fault, Unreachable) else ApiError(502, "BadAnswer", str(fault)))
            else:
                self.woken_at, self._woken_ticks = time.time(), time.monotonic()
                self._answer(answer)
                return
            await self._pause(pause)

    @property
    def _has_replicas(self) -> bool:
        return self.seen is not None and self.seen.replicas > 0

    async def _is_awake(self, timeout: float) -> bool:
        """After a test that failed: somebody else has woken it, or it was never asleep."""
        if self._has_replicas and self.selector is not None:
            return True
        looked = await self._look(lambda path: self._owner.urgent.get(path, timeout))
        return looked and self._has_replicas

    def _sleep(self) -> None:
        if self._sleeping is None and self._path is not None and not self._closed:
            self._sleeping = self._owner.spawn(self._until_asleep(), f"sleep of {self.ref}")
            self._sleeping.add_done_callback(self._slept)

    def _slept(self, done: Task) -> None:
        self._sleeping = None
        if not done.cancelled() and not done.exception() and self.seen:
            self._act()

    async def _until_asleep(self) -> None:
        for pause in wake_client.backoff():
            self._news.clear()
            while self._waking is not None:  # what it has sent could arrive after the zero
                await asyncio.wait({self._waking})
            if not self.is_unwanted or self._path is None or self.is_missing:
                return
            if self.seen is None:
                await self._look(self._owner.api.get)
            elif not self.seen.replicas:
                return
            elif self._owner.may_sleep():
                await self._zero(self._path, self.seen)
                if self.seen is not None and not self.seen.replicas:
                    return
            await self._pause(pause)

    async def _zero(self, path: str, seen: ObservedScale) -> None:
        """One attempt, on what was observed."""
        spare = self._owner.zeroing(self.services)
        self.in_doubt = True
        try:
            answer = scale.parse_scale(
                await self._owner.api.patch(path, scale.sleep_patch(seen), JSON_PATCH), self.ref.key
            )
        except ApiError as error:
            self.in_doubt = False
            if error.status in (CONFLICT, INVALID, NOT_FOUND):
                await self._look_again(seen, error)
            else:
                self._fail(error)
            if self.seen is None or self.seen.replicas:
                spare()
        except (Unreachable, msgspec.DecodeError) as fault:
            log.warning("whether it sleeps is not known", target=str(self.ref), error=str(fault))
            await self._look(self._owner.api.get)
            self.in_doubt = False
            self._owner.changed(self.services)
        else:
            self.in_doubt = False
            self._answer(answer)

    async def _look_again(self, before: ObservedScale, error: ApiError) -> None:
        """It is not as it was observed; or it is, and is not let be scaled."""
        if not await self._look(self._owner.api.get) or self.seen is None:
            return
        if self.seen.replicas != before.replicas:
            log.info(
                "somebody else has scaled what should sleep",
                target=str(self.ref),
                observed=before.replicas,
                replicas=self.seen.replicas,
            )
        elif self.seen.version == before.version and error.status == INVALID:
            self._fail(error)

    async def _pause(self, seconds: float) -> None:
        """Until something is wanted or seen anew, but no longer."""
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return
