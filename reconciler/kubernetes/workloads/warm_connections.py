"""Warm connections for calls that change a scale.

A wake waits neither for a rate limit, nor behind other calls, nor for a handshake. It has an `Api` of its own, whose
connections are used regularly, because the API server closes connections that are idle for 90 s.
"""

from __future__ import annotations

import asyncio

import structlog

from reconciler.kubernetes.client.api import Api
from reconciler.kubernetes.client.errors import ApiError, Unreachable

log = structlog.get_logger()

WARM_CONNECTIONS = 100
"""Number of concurrent wakes that need no handshake."""
WARM_EVERY_SECONDS = 20.0
WARM_BATCH = 20
"""Number of concurrent handshakes, which are the most expensive calls."""
WARM_TIMEOUT_SECONDS = 3.0
WARM_PATH = "/version"
"""A path that every authenticated client may read."""


async def keep_warm(api: Api) -> None:
    """Use every connection for wakes regularly until cancelled; one half stays free for wakes.

    The `api` is used for nothing else, and allows `WARM_CONNECTIONS` connections.
    """
    for connections in range(WARM_BATCH, WARM_CONNECTIONS + 1, WARM_BATCH):
        await _use(api, connections)  # open connections are used again
    while True:
        await asyncio.sleep(WARM_EVERY_SECONDS)
        await _use(api, WARM_CONNECTIONS // 2)
        # The pool hands out the least recently used connection first, so this uses the other half.
        await _use(api, WARM_CONNECTIONS // 2)


async def _use(api: Api, connections: int) -> None:
    touches = [asyncio.create_task(_touch(api)) for _ in range(connections)]
    try:
        await asyncio.wait(touches)
    finally:
        # Also when cancelled: a handshake that is cut off at once leaves its socket open.
        await asyncio.wait(touches)
    if faults := [fault for touch in touches if (fault := touch.result())]:
        log.debug("failed to keep connections warm", connections=len(faults), error=faults[0])


async def _touch(api: Api) -> str | None:
    """Use one connection and return an error, if any. Informers report an API server that is unreachable."""
    try:
        await api.get(WARM_PATH, timeout=WARM_TIMEOUT_SECONDS)
    except ApiError:
        return None  # an error response also used the connection
    except Unreachable as error:
        return str(error)
    return None
