"""Observation of one target: its current scale, from the watch of its kind and from answers about its scale.

The newer observation counts. An answer may overtake the watch, which then repeats an older version.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Protocol

import msgspec
import structlog

from reconciler.concurrency import Backoff
from reconciler.core.reasons import Diagnosis, Reason
from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.client.discovery import ScalableResource
from reconciler.kubernetes.client.errors import DENIED, FORBIDDEN, NOT_FOUND, ApiError, Unreachable
from reconciler.kubernetes.types.objects import Target
from reconciler.kubernetes.workloads.scale import ObservedScale, parse_scale

log = structlog.get_logger()

WATCH_CAUGHT_UP_AFTER_SECONDS = 10.0
"""Time after which the watch has caught up with an answer: from then on it counts, regardless of versions."""
BACKOFF = Backoff(0.02, 2.0)
"""Delays between calls about one scale."""
Task = asyncio.Task[None]


Spawn = Callable[[Coroutine[Any, Any, None], str], Task]
"""Starts a task that ends with the backend; the text is its name."""


class TargetOwner(Protocol):
    """The backend, as a target sees it."""

    api: Api
    urgent: Api
    """For wakes only."""
    reads: asyncio.Semaphore
    """Bounds the concurrent reads of scales that nothing waits for."""
    may_sleep: Callable[[], bool]
    leads: Callable[[], bool]

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> Task:
        """Start a task that ends with the backend."""

    def changed(self, services: Iterable[str]) -> None:
        """Refresh services whose target changed."""

    def zeroing(self, services: tuple[str, ...]) -> Callable[[], None]:
        """Mark the pods of services whose target may be at zero from now on.

        The returned function is called if the target was certainly not scaled.
        """


class TargetObserver:
    """The current state of one target. No method raises.

    `on_change` is called when anything changed, and then `on_scale` if a scale was observed.
    """

    __slots__ = (
        "_answered", "_answered_at", "_closed", "_is_watched", "_on_change", "_on_scale", "_outdated", "_owner",
        "_reading", "current", "diagnosis", "is_absent", "last_replicas", "missing", "resource", "selector", "target",
    )  # fmt: skip

    def __init__(
        self, target: Target, owner: TargetOwner, on_change: Callable[[], None], on_scale: Callable[[], None]
    ) -> None:
        self.target, self._owner, self._on_change, self._on_scale = target, owner, on_change, on_scale
        self.resource: ScalableResource | None = None
        self.current: ObservedScale | None = None
        """None if the scale is not known, or the target does not exist."""
        self.last_replicas: int | None = None
        """Replicas of the last observed scale."""
        self.selector: str | None = None
        """Selector of its pods; None if not known, empty if the target has none."""
        self.diagnosis: Diagnosis | None = None
        """The reason why it cannot be observed or scaled."""
        self.missing: Diagnosis | None = None
        """The reason why nothing can be observed and scaled at present."""
        self.is_absent = False
        """True if it certainly does not exist; a target that zenvoy may not read might exist."""
        self._reading: Task | None = None
        self._outdated = self._closed = self._is_watched = False
        self._answered: ObservedScale | None = None
        self._answered_at = 0.0

    @property
    def has_replicas(self) -> bool:
        """True if the observed replicas are not zero."""
        return self.current is not None and self.current.replicas > 0

    @property
    def is_at_zero(self) -> bool:
        """True if the observed replicas are zero."""
        return self.current is not None and not self.current.replicas

    @property
    def scale_path(self) -> str | None:
        """Path of its scale; None after `close`, or if the watch lacks the object: nothing else may be scaled."""
        if self.resource is None or not self._is_watched or self._closed:
            return None
        return self.resource.scale_path(self.target.namespace, self.target.name)

    def expect(self, resource: ScalableResource) -> None:
        """Record that its kind exists, and the target itself was not seen yet."""
        self.resource, self._is_watched = resource, False

    def found(self, resource: ScalableResource, scale: ObservedScale | None) -> None:
        """Record that it exists; `scale` is None if only its scale subresource has the replicas."""
        self.resource, self._is_watched = resource, True
        if self.missing:
            self.missing = self.diagnosis = None
            self.is_absent = False
        if scale is None:
            self._outdated = True
            self._read_soon()
        elif not self._is_outdated(scale):
            self._observe(scale)

    def lost(self, resource: ScalableResource | None, diagnosis: Diagnosis, absent: bool = True) -> None:
        """Record that it does not exist (`absent`), or cannot be observed at present."""
        self.resource, self._is_watched = resource, self._is_watched and not absent
        if (self.missing, self.is_absent) != (diagnosis, absent):
            self.current = self.selector = None
            self.diagnosis = self.missing = diagnosis
            self.is_absent = absent
            self._on_change()

    def find_selector(self) -> None:
        """Read the selector of its pods if it is not known."""
        if self.selector is None and self.scale_path is not None:
            self._read_soon()

    async def read(self, get: Callable[[str], Awaitable[bytes]] | None = None) -> bool:
        """Read its scale, by default without urgency, and return whether that succeeded."""
        path = self.scale_path
        if path is None:
            return False
        try:
            answer = parse_scale(await (get or self._owner.api.get)(path), self.target.key)
        except ApiError as error:
            if error.status == NOT_FOUND:
                self.lost(self.resource, self._diagnose(error), absent=False)  # only the watch knows that it is absent
            else:
                self.fail(error)
        except (Unreachable, msgspec.DecodeError) as error:
            log.warning("failed to read a scale", target=str(self.target), error=str(error))
        else:
            self.answered(answer)
            return True
        return False

    def answered(self, scale: ObservedScale) -> None:
        """Record the answer to a call; concurrent answers may arrive out of order."""
        self.diagnosis = self.missing = None
        self.is_absent = False
        if not self._is_outdated(scale):
            self._answered, self._answered_at = scale, time.monotonic()
            self._observe(scale)

    def fail(self, error: ApiError | Unreachable) -> None:
        """Record that it cannot be scaled."""
        diagnosis = self._diagnose(error)
        if diagnosis != self.diagnosis:
            log.warning("failed to scale a target", target=str(self.target), error=str(error))
            self.diagnosis = diagnosis
            self._on_change()

    def clear_failure(self) -> None:
        """Forget a failure to scale, because scaling is no longer requested."""
        self.diagnosis = self.missing

    def close(self) -> None:
        """Stop reading and scaling."""
        self._closed = True
        if self._reading is not None:
            self._reading.cancel()

    def _read_soon(self) -> None:
        if self._reading is None and not self._closed:
            self._reading = self._owner.spawn(self._read_until_current(), f"read of {self.target}")

    async def _read_until_current(self) -> None:
        try:
            for pause in BACKOFF.delays():
                self._outdated = False
                async with self._owner.reads:
                    succeeded = await self.read()
                if self.missing or (succeeded and not self._outdated):
                    return
                await asyncio.sleep(pause)
        finally:
            self._reading = None

    def _observe(self, scale: ObservedScale) -> None:
        self.current, self.last_replicas = scale, scale.replicas
        if scale.selector is not None:
            self.selector = scale.selector
        self._on_change()
        self._on_scale()

    def _is_outdated(self, scale: ObservedScale) -> bool:
        if self._answered is None or time.monotonic() - self._answered_at > WATCH_CAUGHT_UP_AFTER_SECONDS:
            return False
        return self._answered.is_newer_than(scale)

    def _diagnose(self, error: ApiError | Unreachable) -> Diagnosis:
        """Return why the target cannot be scaled, with a remedy."""
        target, resource = self.target, self.resource.plural if self.resource else self.target.kind
        if isinstance(error, Unreachable):
            return Diagnosis(Reason.API_UNREACHABLE, f"the API server does not answer: {error}")
        if error.status == NOT_FOUND:
            return Diagnosis(Reason.TARGET_NOT_FOUND, f"{target} does not exist")
        # The API server gives a denial by RBAC and one by an admission webhook the same status and reason.
        if error.status == FORBIDDEN and f'resource "{resource}/scale" in API group' in error.message:
            remedy = f"add {resource} to the chart's `scaleTargets`"
            message = f"zenvoy may not scale {target}: no right to {resource}/scale in {target.namespace}; {remedy}"
            return Diagnosis(Reason.FORBIDDEN, message)
        if error.status in DENIED:
            return Diagnosis(Reason.FORBIDDEN, f"{target} cannot be scaled: {error.message}")
        message = f"{target} cannot be scaled: {error.reason or error.status}: {error.message}"
        return Diagnosis(Reason.SCALE_FAILED, message)
