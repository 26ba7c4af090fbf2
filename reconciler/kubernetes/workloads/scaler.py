"""Scaling of one target to what its services desire.

- A wake is sent at once, regardless of the observed replicas, because its patch changes zero only. It is retried until
  it is no longer desired. A follower first waits briefly for the leader, which sends the same wake.
- The target is scaled to zero if all its services desire that and `may_sleep` agrees right before each attempt. The
  patch names the observed version. If someone else changed the replicas meanwhile, that is logged, and the new number
  is scaled to zero if that is still desired: a user keeps a service awake by using it or by pausing it.
- Once the target is awake, its replicas belong to their owner: an HPA, KEDA, or a person.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import msgspec
import structlog

from reconciler.concurrency import Backoff
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
from reconciler.kubernetes.types.objects import Target
from reconciler.kubernetes.workloads.scale import ObservedScale, parse_scale, sleep_patch, wake_patches
from reconciler.kubernetes.workloads.target_observer import BACKOFF, TargetObserver, TargetOwner, Task
from reconciler.plan import AtLeast, Scale, Zero

log = structlog.get_logger()

REPORT_AFTER_SECONDS = 1.0
"""A wake that fails with transient errors for this long is reported."""
LEADER_HEAD_START_SECONDS = 0.05
"""A follower waits this long for the leader's wake: two replicas that send each wake would double the calls."""
STABLE_AFTER_SECONDS = 5.0
"""A wake that is undone sooner is repeated with increasing delays, because another controller insists on zero."""
WAKE_TIMEOUTS = Backoff(3.0, 24.0, jitter=(1.0, 1.0))
"""A wake without an answer is sent again after this time: its connection may be dead. A repetition is harmless. The
timeout grows, because the API server or an admission webhook may be slow, and a cut-off call may have no effect."""


class TargetScaler:
    """One target. Its calls run in tasks of their own; no method raises."""

    __slots__ = (
        "_backoff", "_desired", "_news", "_owner", "_waking", "_woken_ticks", "observer", "sleeping", "target",
        "woken_at", "zero_pending",
    )  # fmt: skip

    def __init__(self, target: Target, owner: TargetOwner) -> None:
        self.target, self._owner = target, owner
        self.observer = TargetObserver(target, owner, self._report_change, self._converge)
        self.woken_at: float | None = None
        """When the latest wake was answered, in seconds since the epoch."""
        self.zero_pending = False
        """True while a patch to zero is in flight, which may or may not take effect."""
        self._desired: dict[str, Scale] = {}
        self._waking: Task | None = None
        self.sleeping: Task | None = None
        """The task that scales the target to zero, while there is one."""
        self._news = asyncio.Event()
        self._backoff = BACKOFF.delays()
        self._woken_ticks = 0.0

    @property
    def services(self) -> tuple[str, ...]:
        """The services that have this target."""
        return tuple(self._desired)

    @property
    def desired_replicas(self) -> int | None:
        """Replicas that a wake requests; None if no service desires one."""
        return max((one.replicas for one in self._desired.values() if isinstance(one, AtLeast)), default=None)

    @property
    def is_zero_desired(self) -> bool:
        """True if all services desire zero."""
        return bool(self._desired) and all(isinstance(one, Zero) for one in self._desired.values())

    def set_desired(self, service: str, desired: Scale) -> None:
        """Set what a service desires."""
        before = self._desired.get(service)
        self._desired[service] = desired
        self._news.set()
        if isinstance(desired, AtLeast) and not isinstance(before, AtLeast):
            self._backoff, self._woken_ticks = BACKOFF.delays(), 0.0
            self._wake()
        elif self.is_zero_desired:
            self._sleep()
        elif not any(self._desired.values()):
            self.observer.clear_failure()

    def leave(self, service: str) -> None:
        """Remove a service that is gone or has another target."""
        self._desired.pop(service, None)
        self._news.set()
        if self.is_zero_desired:
            self._sleep()

    def found(self, resource: ScalableResource, scale: ObservedScale | None) -> None:
        """Record that the watch has the target."""
        self._news.set()
        self.observer.found(resource, scale)

    def close(self) -> None:
        """Stop all calls and leave the target as it is."""
        self.observer.close()
        for task in (self._waking, self.sleeping):
            if task is not None:
                task.cancel()

    def _report_change(self) -> None:
        self._owner.changed(self.services)

    def _converge(self) -> None:
        if self.desired_replicas is not None and not self.observer.has_replicas:
            self._wake()
        elif self.is_zero_desired and not self.observer.is_at_zero:
            self._sleep()

    def _wake(self) -> None:
        if self._waking is None and self.observer.scale_path is not None:
            self._waking = self._owner.spawn(self._wake_until_awake(), f"wake of {self.target}")
            self._waking.add_done_callback(self._ended)

    def _ended(self, done: Task) -> None:
        if done is self._waking:
            self._waking = None
        else:
            self.sleeping = None
        if not done.cancelled() and not done.exception() and self.observer.current:
            self._converge()

    async def _wake_until_awake(self) -> None:
        """Send the wake until it is answered, is not needed, or is no longer desired."""
        if self._woken_ticks and time.monotonic() - self._woken_ticks < STABLE_AFTER_SECONDS:
            await asyncio.sleep(next(self._backoff))
        if await self._was_woken_by_leader():
            return
        began, rejected, unanswered = time.monotonic(), list[ApiError](), 0
        for pause in BACKOFF.delays():
            self._news.clear()
            replicas, path = self.desired_replicas, self.observer.scale_path
            if replicas is None or path is None:
                return
            patches, timeout = wake_patches(replicas), WAKE_TIMEOUTS.delay(max(0, unanswered - 1))
            try:
                sent = self._owner.urgent.patch(path, patches[len(rejected)], JSON_PATCH, timeout)
                answer = parse_scale(await sent, self.target.key)
            except ApiError as error:
                if error.status == INVALID and await self._is_awake(timeout):
                    return
                if error.status == INVALID and len(rejected) + 1 < len(patches):
                    rejected.append(error)  # zero may be written in another form; otherwise this is the error to report
                    continue
                if not is_transient_or_conflict(error):
                    self.observer.fail(rejected.pop(0) if rejected else error)
                    pause = BACKOFF.longest
                elif time.monotonic() - began > REPORT_AFTER_SECONDS:
                    self.observer.fail(error)
            except (Unreachable, msgspec.DecodeError) as error:
                unanswered += 1
                if time.monotonic() - began > REPORT_AFTER_SECONDS:
                    self.observer.fail(
                        error if isinstance(error, Unreachable) else ApiError(502, "BadAnswer", str(error))
                    )
            else:
                self.woken_at, self._woken_ticks = time.time(), time.monotonic()
                self.observer.answered(answer)
                return
            await self._wait_for_news(pause)

    async def _was_woken_by_leader(self) -> bool:
        """Give the leader a head start, unless this replica leads, and return whether the target is awake then."""
        if self._owner.leads() or self.observer.has_replicas:  # an observation from before may be outdated
            return False
        await asyncio.sleep(LEADER_HEAD_START_SECONDS)
        return self.observer.has_replicas

    async def _is_awake(self, timeout: float) -> bool:
        """Return whether a rejected wake was not needed: the target was woken by someone else, or was never asleep."""
        if self.observer.has_replicas and self.observer.selector is not None:
            return True
        succeeded = await self.observer.read(lambda path: self._owner.urgent.get(path, timeout=timeout))
        return succeeded and self.observer.has_replicas

    def _sleep(self) -> None:
        if self.sleeping is None and self.observer.scale_path is not None:
            self.sleeping = self._owner.spawn(self._sleep_until_asleep(), f"sleep of {self.target}")
            self.sleeping.add_done_callback(self._ended)

    async def _sleep_until_asleep(self) -> None:
        """Scale the target to zero until it is at zero, is gone, or zero is no longer desired."""
        observer = self.observer
        for pause in BACKOFF.delays():
            self._news.clear()
            while self._waking is not None:  # its patch could arrive after the one to zero
                await asyncio.wait({self._waking})
            path, current = observer.scale_path, observer.current
            if not self.is_zero_desired or path is None or observer.missing:
                return
            if current is None:
                await observer.read()
            elif not current.replicas:
                return
            elif self._owner.may_sleep():
                await self._scale_to_zero(path, current)
                if observer.is_at_zero:
                    return
            await self._wait_for_news(pause)

    async def _scale_to_zero(self, path: str, current: ObservedScale) -> None:
        """Make one attempt, based on the observed scale."""
        unmark = self._owner.zeroing(self.services)
        self.zero_pending = True
        try:
            answer = parse_scale(await self._owner.api.patch(path, sleep_patch(current), JSON_PATCH), self.target.key)
        except ApiError as error:
            self.zero_pending = False
            if error.status in (CONFLICT, INVALID, NOT_FOUND):
                await self._read_after_rejection(current, error)
            else:
                self.observer.fail(error)
            if not self.observer.is_at_zero:
                unmark()
        except (Unreachable, msgspec.DecodeError) as error:
            log.warning(
                "scaling to zero has an unknown result, reading the scale", target=str(self.target), error=str(error)
            )
            await self.observer.read()
            self.zero_pending = False
            self._report_change()
        else:
            self.zero_pending = False
            self.observer.answered(answer)

    async def _read_after_rejection(self, before: ObservedScale, error: ApiError) -> None:
        """Find out whether the target changed since it was observed, or must not be scaled."""
        if not await self.observer.read() or (current := self.observer.current) is None:
            return
        if current.replicas != before.replicas:
            log.info(
                "target was scaled by someone else while it was put to sleep",
                target=str(self.target),
                observed=before.replicas,
                replicas=current.replicas,
            )
        elif current.version == before.version and error.status == INVALID:
            self.observer.fail(error)

    async def _wait_for_news(self, seconds: float) -> None:
        """Wait until something new is desired or observed, but at most `seconds`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()
