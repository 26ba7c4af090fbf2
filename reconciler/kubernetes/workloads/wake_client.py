"""Calls that change a scale: the connections that a wake goes out on, when to try again, and what went wrong in words.

Rule: a wake waits for nothing: no rate limit, no queue behind other calls, no handshake. It has an `Api` of its own
whose connections are used now and then, as the API server closes those that are silent for 90 s.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import structlog

from reconciler.kubernetes.client.api import JSON_PATCH, Api
from reconciler.kubernetes.client.errors import ApiError, Unreachable
from reconciler.kubernetes.workloads.scale import Patch

log = structlog.get_logger()

WARM_CONNECTIONS = 100
"""As many wakes leave at once without waiting for a handshake, or for another's answer. More wait for handshakes."""
WARM_EVERY_SECONDS = 20.0
WARM_AT_ONCE = 20
"""Handshakes at once: they are the dearest thing that is ever done with the API server."""
WARM_TIMEOUT_SECONDS = 3.0
WARM_PATH = "/version"
"""Everybody who is known to the API server may read it."""
WAKE_TIMEOUT_SECONDS = 3.0
"""A wake can be sent twice, so one that is not answered soon is: its connection may be dead."""
WAKE_TIMEOUT_MOST_SECONDS = 24.0
"""It may also be an API server, or a webhook of somebody's, that is slow: a call that is cut off may never be done."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.02, 2.0


class WakeClient:
    """Sends wakes on connections that are open already. `api` is for nothing else, with room for them all."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.is_warm = False
        """Whether all connections have been opened once."""

    async def patch(self, path: str, patch: Patch, timeout: float) -> bytes:
        """The answer. Raises `ApiError` and `Unreachable`."""
        return await self._api.call("PATCH", path, patch, JSON_PATCH, timeout=timeout)

    async def get(self, path: str, timeout: float) -> bytes:
        """The object. Raises `ApiError` and `Unreachable`."""
        return await self._api.get(path, timeout=timeout)

    async def keep_warm(self) -> None:
        """Until cancelled. One half after the other: the rest is free for whoever comes meanwhile."""
        for connections in range(WARM_AT_ONCE, WARM_CONNECTIONS + 1, WARM_AT_ONCE):
            await self._use(connections)  # those that are open already are used again
        self.is_warm = True
        while True:
            await asyncio.sleep(WARM_EVERY_SECONDS)
            await self._use(WARM_CONNECTIONS // 2)
            await self._use(
                WARM_CONNECTIONS // 2
            )  # the others: a connection that was used is the last to be used again

    async def _use(self, connections: int) -> None:
        touches = [asyncio.create_task(self._touch()) for _ in range(connections)]
        try:
            await asyncio.wait(touches)
        finally:
            # When cancelled too: a handshake that is cut off in its first moment leaves its socket open.
            await asyncio.wait(touches)
        if faults := [fault for touch in touches if (fault := touch.result())]:
            log.debug("connections cannot be kept warm", connections=len(faults), error=faults[0])

    async def _touch(self) -> str | None:
        """Why it could not be used; the next wake will try, and informers tell of an API server that is away."""
        try:
            await self._api.get(WARM_PATH, timeout=WARM_TIMEOUT_SECONDS)
        except ApiError:
            return None  # refused is as good as answered
        except Unreachable as error:
            return str(error)
        return None


def backoff() -> Iterator[float]:
    """Seconds to wait between attempts, longer and longer, and never all at the same time."""
    pause = FIRST_PAUSE_SECONDS
    while True:
        yield pause * random.uniform(0.8, 1.2)
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


def wake_timeout(unanswered: int) -> float:
    """How long to wait for an answer after so many in a row of which there was none."""
    return min(WAKE_TIMEOUT_SECONDS * 2.0 ** max(0, min(unanswered, 8) - 1), WAKE_TIMEOUT_MOST_SECONDS)


def words(error: ApiError | Unreachable, target: str, resource: str, namespace: str) -> str:
    """Why the number of replicas cannot be changed, and what would help. `resource` is as in RBAC: `deployments`."""
    if isinstance(error, Unreachable):
        return f"ApiUnreachable: the API server does not answer: {error}"
    if error.status == 404:
        return f"TargetNotFound: {target} does not exist"
    if error.status == 403 and f'resource "{resource}/scale" in API group' in error.message:
        remedy = f"add {resource} to the chart's `scaleTargets`"
        return f"Forbidden: zenvoy may not scale {target}: no right to {resource}/scale in {namespace}; {remedy}"
    if error.status in (401, 403):
        return f"Forbidden: {target} cannot be scaled: {error.message}"
    return f"ScaleFailed: {target} cannot be scaled: {error.reason or error.status}: {error.message}"
