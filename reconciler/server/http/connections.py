"""Limits on connections to the HTTP ports, in number and time, so that file descriptors remain for wakes.

A connection has `HEADERS_SECONDS` for its first request, and `IDLE_SECONDS` after each response for the next request.
At the limit, a new connection replaces the connection that has been idle for longest: probes are answered even while
strangers keep connections open.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from aiohttp import web

log = structlog.get_logger()

HEADERS_SECONDS = 10.0
IDLE_SECONDS = 75.0
"""Longer than the usual interval of a scrape."""
MOST = 256
"""Connections of one process, in addition to the limit of an eighth of its descriptors."""
BACKLOG = 64
REPORT_SECONDS = 60.0
"""Minimum time between two log lines about one shortage."""
_OUT_OF_RESOURCE = "socket.accept() out of system resource"
"""As asyncio reports it to an exception handler."""


class Connections:
    """The connections to all HTTP ports of a process."""

    def __init__(self) -> None:
        self._most = min(MOST, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 8)
        self._open: set[Guarded] = set()
        self._report = Reporter("HTTP connections are at their limit; new ones replace idle ones")

    def guard(self, make: Callable[[], asyncio.Protocol]) -> Callable[[], asyncio.Protocol]:
        """Return a factory whose protocols are counted here."""
        return lambda: Guarded(self, make())

    def admit(self, connection: Guarded) -> bool:
        """Add a connection, replacing an idle one at the limit; return whether there is room."""
        if len(self._open) >= self._most:
            self._report(limit=self._most)
            idle = [one for one in self._open if one.waits_since is not None]
            if not idle:
                return False
            oldest = min(idle, key=lambda one: one.waits_since or 0.0)
            self._open.discard(oldest)
            oldest.abort()
        self._open.add(connection)
        return True

    def left(self, connection: Guarded) -> None:
        self._open.discard(connection)


class Guarded(asyncio.Protocol):
    """A connection of aiohttp that is closed if it sends no request in time."""

    def __init__(self, connections: Connections, inner: asyncio.Protocol) -> None:
        self._connections, self._inner = connections, inner
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.waits_since: float | None = None
        """Time since when it is idle, by the loop's clock; None while a request is handled."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        if not self._connections.admit(self):
            transport.abort()
            return
        self._transport = transport
        self._wait(HEADERS_SECONDS)
        self._inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._connections.left(self)
            self.begin()
            self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._transport is not None:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._transport is not None else None

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def begin(self) -> None:
        """Stop the timer while a request is handled."""
        self.waits_since = None
        if self._timer:
            self._timer.cancel()

    def end(self) -> None:
        """Start the timer for reading the response and sending the next request."""
        self._wait(IDLE_SECONDS)

    def abort(self) -> None:
        if self._transport:
            self._transport.abort()

    def _wait(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self.waits_since = loop.time()
        self._timer = loop.call_later(seconds, self.abort)


@web.middleware
async def timed(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Any:
    """Stop the timer of a connection while its request is handled."""
    guarded = request.transport.get_protocol() if request.transport else None
    if not isinstance(guarded, Guarded):
        return await handler(request)
    guarded.begin()
    try:
        return await handler(request)
    finally:
        guarded.end()


class Reporter:
    """A log line that is written at most once in `REPORT_SECONDS`."""

    def __init__(self, message: str) -> None:
        self._message, self._last = message, -REPORT_SECONDS

    def __call__(self, **more: Any) -> None:
        now = time.monotonic()
        if now - self._last >= REPORT_SECONDS:
            self._last = now
            log.error(self._message, **more)


def report_exhaustion() -> None:
    """Make the running loop report a lack of descriptors once a minute, not at each failed accept."""
    report = Reporter("connections cannot be accepted: too many open files; raise the limit, or close connections")

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if context.get("message") == _OUT_OF_RESOURCE:
            report(error=str(context.get("exception")))
        else:
            loop.default_exception_handler(context)

    asyncio.get_running_loop().set_exception_handler(handle)
