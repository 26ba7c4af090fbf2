"""What is seen of one target: by the watch of its kind, and by the answers to calls about its scale.

Rule: what is newer counts; an answer overtakes the watch, which then brings what is older once more.
Counterparts: `scaler.py`, which acts on it; `scale.py`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol

import msgspec
import structlog

from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.client.discovery import ScalableResource
from reconciler.kubernetes.client.errors import NOT_FOUND, ApiError, Unreachable
from reconciler.kubernetes.types.target import Target
from reconciler.kubernetes.workloads import scale, wake_client
from reconciler.kubernetes.workloads.scale import ObservedScale

log = structlog.get_logger()

SETTLED_SECONDS = 10.0
"""By then the watch has caught up with an answer: from then on it is right, whatever the versions say."""
Task = asyncio.Task[None]


class TargetOwner(Protocol):
    """Who is told of a target, and whom its calls go through."""

    api: Api
    urgent: wake_client.WakeClient
    looks: asyncio.Semaphore
    """Bounds how many scales are read at once, where nobody waits for it."""
    may_sleep: Callable[[], bool]
    leads: Callable[[], bool]

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> Task: ...

    def changed(self, services: tuple[str, ...]) -> None:
        """Something of their target is not what it was."""

    def zeroing(self, services: tuple[str, ...]) -> Callable[[], None]:
        """Their target may be at zero from now on; what is returned is called when it was spared for certain."""


class TargetObserver:
    """One target as it is seen. Nothing is raised out of any method."""

    __slots__ = (
        "_answered", "_answered_at", "_closed", "_is_absent", "_is_watched", "_looking", "_missing", "_outdated",
        "_owner", "kind", "last", "ref", "seen", "selector", "trouble",
    )  # fmt: skip

    def __init__(self, ref: Target, owner: TargetOwner) -> None:
        self.ref, self._owner = ref, owner
        self.kind: ScalableResource | None = None
        self.seen: ObservedScale | None = None
        """None: not known, or it does not exist."""
        self.last: int | None = None
        """What it asked for when it was seen last."""
        self.selector: str | None = None
        """Of its pods; None when not known, empty when it does not say."""
        self.trouble: str | None = None
        """Why it cannot be seen or scaled."""
        self._missing: str | None = None
        self._looking: Task | None = None
        self._outdated = self._closed = self._is_absent = self._is_watched = False
        self._answered: ObservedScale | None = None
        self._answered_at = 0.0

    @property
    def services(self) -> tuple[str, ...]:
        """Those that it belongs to."""
        raise NotImplementedError

    @property
    def is_missing(self) -> bool:
        """Whether there is nothing that could be seen and scaled at present."""
        return self._missing is not None

    @property
    def is_absent(self) -> bool:
        """Whether it does not exist, which is certain; what zenvoy may not see may run."""
        return self._missing is not None and self._is_absent

    def expect(self, kind: ScalableResource) -> None:
        """Its kind exists; itself is yet to be seen."""
        self.kind, self._is_watched = kind, False

    def found(self, kind: ScalableResource, seen: ObservedScale | None) -> None:
        """It exists; `seen` is None when only its scale tells the number."""
        self.kind, self._is_watched = kind, True
        if self._missing is not None:
            self._missing = self.trouble = None
        if seen is None:
            self._outdated = True
            self._look_soon()
        elif not self._is_outdated(seen):
            self._saw(seen)

    def lost(self, kind: ScalableResource | None, why: str, absent: bool = True) -> None:
        """It does not exist (`absent`), or cannot be seen at present."""
        self.kind, self._is_watched = kind, self._is_watched and not absent
        if (self._missing, self._is_absent) != (why, absent):
            self._is_absent = absent
            self.seen = self.selector = None
            self.trouble = self._missing = why
            self._owner.changed(self.services)

    def identify(self) -> None:
        """Find out which pods are its own, if that is not known."""
        if self.selector is None and self._path is not None:
            self._look_soon()

    def _act(self) -> None:
        """Do what follows from what is seen now."""
        raise NotImplementedError

    @property
    def _path(self) -> str | None:
        """Where its scale is; None unless the watch sees the object, since nothing else may be scaled."""
        if self.kind is None or not self._is_watched:
            return None
        return self.kind.scale_path(self.ref.namespace, self.ref.name)

    def _look_soon(self) -> None:
        if self._looking is None and not self._closed:
            self._looking = self._owner.spawn(self._until_seen(), f"look at {self.ref}")

    async def _until_seen(self) -> None:
        try:
            for pause in wake_client.backoff():
                self._outdated = False
                async with self._owner.looks:
                    looked = await self._look(self._owner.api.get)
                if self._missing or (looked and not self._outdated):
                    return
                await asyncio.sleep(pause)
        finally:
            self._looking = None

    async def _look(self, get: Callable[[str], Awaitable[bytes]]) -> bool:
        """Read the scale itself; whether that could be done."""
        if self._path is None:
            return False
        try:
            answer = scale.parse_scale(await get(self._path), self.ref.key)
        except ApiError as error:
            if error.status == NOT_FOUND:
                self.lost(self.kind, self._words(error), absent=False)  # which only the watch can tell
            else:
                self._fail(error)
        except (Unreachable, msgspec.DecodeError) as error:
            log.warning("a scale cannot be read", target=str(self.ref), error=str(error))
        else:
            self._answer(answer)
            return True
        return False

    def _answer(self, seen: ObservedScale) -> None:
        """What a call was answered; two that cross may be answered the wrong way round."""
        self.trouble = self._missing = None
        if not self._is_outdated(seen):
            self._answered, self._answered_at = seen, time.monotonic()
            self._saw(seen)

    def _saw(self, seen: ObservedScale) -> None:
        self.seen, self.last = seen, seen.replicas
        if seen.selector is not None:
            self.selector = seen.selector
        self._owner.changed(self.services)
        self._act()

    def _is_outdated(self, seen: ObservedScale) -> bool:
        if self._answered is None or time.monotonic() - self._answered_at > SETTLED_SECONDS:
            return False
        return self._answered.is_newer_than(seen)

    def _fail(self, error: ApiError | Unreachable) -> None:
        said = self._words(error)
        if said != self.trouble:
            log.warning("a target cannot be scaled", target=str(self.ref), error=str(error))
            self.trouble = said
            self._owner.changed(self.services)

    def _words(self, error: ApiError | Unreachable) -> str:
        resource = self.kind.plural if self.kind else self.ref.kind
        return wake_client.words(error, str(self.ref), resource, self.ref.namespace)
