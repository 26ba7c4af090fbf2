"""A bound on the connections of our HTTP ports, in number and in time, so that strangers leave descriptors for wakes.

A connection has `HEADERS_SECONDS` for its first request, and `IDLE_SECONDS` after an answer for the next one, however
it spends them. Beyond the limit, the one that has been without a request for longest is closed for a new one: probes
are answered while a stranger keeps connections open.
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
"""Connections of one process, with an eighth of its descriptors at most."""
BACKLOG = 64
REPORT_SECONDS = 60.0
"""The least between two lines of the log about one shortage."""
_OUT_OF_RESOURCE = "socket.accept() out of system resource"
"""As asyncio reports it to an exception handler."""


class Connections:
    """All connections of a process's HTTP ports."""

    def __init__(self, most: int | None = None) -> None:
        self.most = most or min(MOST, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 8)
        self._open: set[Guarded] = set()
        self._report = Reporter("HTTP connections are at their limit; idle ones are closed for new ones")

    def __len__(self) -> int:
        return len(self._open)

    def guard(self, make: Callable[[], asyncio.Protocol]) -> Callable[[], asyncio.Protocol]:
        """Return a factory whose protocols are counted here."""
        return lambda: Guarded(self, make())

    def admit(self, connection: Guarded) -> bool:
        """Count a new connection, in the place of an idle one if need be; return whether there is room."""
        if len(self._open) >= self.most:
            self._report(limit=self.most)
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
    """A connection of aiohttp's, which is closed when it makes no request in time."""

    def __init__(self, connections: Connections, inner: asyncio.Protocol) -> None:
        self._connections, self._inner = connections, inner
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.waits_since: float | None = None
        """By the loop's clock, since when it has no request; None while one is handled."""

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
        """Let a request take the time that its handler takes."""
        self.waits_since = None
        if self._timer:
            self._timer.cancel()

    def end(self) -> None:
        """Give it time to take the answer, and to make another request."""
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
    """Note on a request's connection when it is handled."""
    guarded = request.transport.get_protocol() if request.transport else None
    if not isinstance(guarded, Guarded):
        return await handler(request)
    guarded.begin()
    try:
        return await handler(request)
    finally:
        guarded.end()


class Reporter:
    """A line of the log that is written at most once in `REPORT_SECONDS`."""

    def __init__(self, what: str) -> None:
        self._what, self._last = what, -REPORT_SECONDS

    def __call__(self, **more: Any) -> None:
        now = time.monotonic()
        if now - self._last >= REPORT_SECONDS:
            self._last = now
            log.error(self._what, **more)


def report_exhaustion() -> None:
    """Have the running loop report a lack of descriptors once in a while, not at each attempt to accept."""
    report = Reporter("connections cannot be accepted: raise the limit on open files, or find who keeps them open")

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if context.get("message") == _OUT_OF_RESOURCE:
            report(error=str(context.get("exception")))
        else:
            loop.default_exception_handler(context)

    asyncio.get_running_loop().set_exception_handler(handle)
