"""A single-threaded epoll loop: callbacks by file descriptor, timers, and a door for other threads.

Not asyncio, because what a relay does between two system calls is most of what it costs: here an event costs a look-up
and a call. The rules: everything but `call_soon_threadsafe` belongs to the thread that runs the loop; callbacks
never block; a callback that raises is reported, and the loop goes on. Masks are epoll's own (epoll(7)), with `EPOLLET`.
"""

from __future__ import annotations

import collections
import heapq
import itertools
import logging
import os
import select
import time
from collections.abc import Callable

EVENTS_PER_POLL = 256
MIN_CANCELLED = 64
"""Cancelled timers are swept out of the heap when there are this many, and they are the greater part of it."""

log = logging.getLogger(__name__)


def _log_error(error: Exception) -> None:
    log.error("a callback failed", exc_info=error)


class Timer:
    """A call that is yet to come."""

    __slots__ = ("_fn", "_loop")

    def __init__(self, loop: Loop, fn: Callable[[], object]) -> None:
        self._loop = loop
        self._fn: Callable[[], object] | None = fn

    def cancel(self) -> None:
        """Forget the call. Harmless when it was made or cancelled before."""
        if self._fn is not None:
            self._fn = None
            self._loop._forget_timer()

    def take(self) -> Callable[[], object] | None:
        """What to call now, once; None when it was cancelled."""
        fn, self._fn = self._fn, None
        return fn


class Loop:
    """Waits for descriptors and times, and calls back.

    `on_error` gets every exception of a callback (but not `KeyboardInterrupt` and the like, which leave `run`); by
    default it is logged.
    """

    def __init__(self, on_error: Callable[[Exception], object] = _log_error) -> None:
        self._on_error = on_error
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], object]] = {}
        self._stale: set[int] = set()
        self._timers: list[tuple[float, int, Timer]] = []
        self._cancelled = 0
        self._order = itertools.count()
        self._soon: collections.deque[Callable[[], object]] = collections.deque()
        self._running = False
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.register(self._bell, select.EPOLLIN, self._rung)

    def register(self, fd: int, mask: int, callback: Callable[[int], object]) -> None:
        """Call `callback(events)` whenever `fd` has one of the events in `mask`. Raises OSError: epoll_ctl(2)."""
        self._epoll.register(fd, mask)
        self._callbacks[fd] = callback

    def modify(self, fd: int, mask: int) -> None:
        """Wait for other events of `fd`. With `EPOLLET`, events that are already there are reported again."""
        self._epoll.modify(fd, mask)

    def unregister(self, fd: int) -> None:
        """Stop waiting for `fd`; to be called before it is closed. Raises KeyError when it is not registered.

        Events of the current batch that were meant for it are dropped, even when its number has been given to a new
        descriptor since: whatever the new one has to say, epoll will say again.
        """
        del self._callbacks[fd]
        self._stale.add(fd)
        self._epoll.unregister(fd)

    def call_at(self, monotonic_seconds: float, fn: Callable[[], object]) -> Timer:
        """Call `fn()` when `time.monotonic()` has reached that, to the millisecond, never before."""
        timer = Timer(self, fn)
        heapq.heappush(self._timers, (monotonic_seconds, next(self._order), timer))
        return timer

    def call_later(self, seconds: float, fn: Callable[[], object]) -> Timer:
        """Call `fn()` in so many seconds."""
        return self.call_at(time.monotonic() + seconds, fn)

    def call_soon(self, fn: Callable[[], object]) -> None:
        """Call `fn()` once the descriptors that are ready now have had their turn. Only from the loop's own thread."""
        self._soon.append(fn)

    def call_soon_threadsafe(self, fn: Callable[[], object]) -> None:
        """Call `fn()` in the loop's thread, soon. From any thread or signal handler; calls keep their order."""
        self._soon.append(fn)
        os.eventfd_write(self._bell, 1)

    def run(self) -> None:
        """Run until `stop`. May be run again afterwards."""
        poll, callbacks, stale = self._epoll.poll, self._callbacks, self._stale
        self._running = True
        while self._running:
            stale.clear()
            for fd, events in poll(self._patience_seconds(), EVENTS_PER_POLL):
                if fd in stale:
                    continue
                try:
                    callbacks[fd](events)
                except Exception as error:
                    self._on_error(error)
            if self._timers:
                self._call_due(time.monotonic())
            if self._soon:
                self._call_soon_ones()

    def stop(self) -> None:
        """Make `run` return after the present round. From another thread: `call_soon_threadsafe(loop.stop)`."""
        self._running = False

    def close(self) -> None:
        """Give the loop's own descriptors back. Those that were registered stay open: they are their owners'."""
        self._callbacks.clear()
        self._timers.clear()
        self._soon.clear()
        self._epoll.close()
        os.close(self._bell)

    def _patience_seconds(self) -> float:
        if self._soon:
            return 0
        if not self._timers:
            return -1
        return max(0.0, self._timers[0][0] - time.monotonic())

    def _call_due(self, now: float) -> None:
        timers = self._timers
        while timers and timers[0][0] <= now:
            fn = heapq.heappop(timers)[2].take()
            if fn is None:
                self._cancelled -= 1
            else:
                self._call(fn)

    def _call_soon_ones(self) -> None:
        # Those that the calls themselves add wait for the next round, after the descriptors.
        for _ in range(len(self._soon)):
            self._call(self._soon.popleft())

    def _call(self, fn: Callable[[], object]) -> None:
        try:
            fn()
        except Exception as error:
            self._on_error(error)

    def _forget_timer(self) -> None:
        self._cancelled += 1
        if self._cancelled >= MIN_CANCELLED and self._cancelled * 2 > len(self._timers):
            self._timers[:] = [entry for entry in self._timers if entry[2]._fn is not None]
            heapq.heapify(self._timers)
            self._cancelled = 0

    def _rung(self, _events: int) -> None:
        os.eventfd_read(self._bell)
