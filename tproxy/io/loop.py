"""A single-threaded epoll loop: callbacks by file descriptor, timers, and calls from other threads.

It is not asyncio because most of the cost of a relay is what happens between two system calls: here an event costs a
look-up and a call. Everything except `call_soon_threadsafe` must be called in the thread that runs the loop. Callbacks
never block. A callback that raises is reported, and the loop continues. Masks are those of epoll(7).
"""

from __future__ import annotations

import collections
import heapq
import itertools
import os
import select
import time
from collections.abc import Callable
from dataclasses import dataclass

EVENTS_PER_POLL = 256
MIN_CANCELLED = 64
"""Cancelled timers are removed from the heap if there are at least this many and they are more than half of it."""


@dataclass(slots=True, eq=False)
class Timer:
    """A scheduled call."""

    _loop: Loop
    fn: Callable[[], object] | None
    """None once the call was made or cancelled."""

    def cancel(self) -> None:
        """Cancel the call. Has no effect if it was made or cancelled before."""
        if self.fn is not None:
            self.fn = None
            self._loop.count_cancelled()


class Loop:
    """Waits for descriptors and times, and calls back. `on_error` receives every `Exception` of a callback."""

    def __init__(self, on_error: Callable[[Exception], object]) -> None:
        self._on_error = on_error
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], object]] = {}
        self._stale: set[int] = set()
        self._timers: list[tuple[float, int, Timer]] = []
        self._cancelled = 0
        self._order = itertools.count()
        self._soon: collections.deque[Callable[[], object]] = collections.deque()
        self._running = False
        self._wakeup = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.register(self._wakeup, select.EPOLLIN, lambda _: os.eventfd_read(self._wakeup))

    def register(self, fd: int, mask: int, callback: Callable[[int], object]) -> None:
        """Call `callback(events)` when `fd` has one of the events in `mask`. Raises OSError (epoll_ctl(2))."""
        self._epoll.register(fd, mask)
        self._callbacks[fd] = callback

    def rebind(self, fd: int, callback: Callable[[int], object]) -> None:
        """Call `callback` for the events of a registered `fd` from now on. Costs no system call."""
        self._callbacks[fd] = callback

    def modify(self, fd: int, mask: int) -> None:
        """Wait for other events of `fd`. With `EPOLLET`, existing events are reported again."""
        self._epoll.modify(fd, mask)

    def unregister(self, fd: int) -> None:
        """Stop waiting for `fd`, which must not be closed yet. Raises KeyError if it is not registered.

        Its events in the current batch are dropped, even if a new descriptor has received its number: epoll reports
        the events of the new one again.
        """
        del self._callbacks[fd]
        self._stale.add(fd)
        self._epoll.unregister(fd)

    def call_at(self, monotonic_seconds: float, fn: Callable[[], object]) -> Timer:
        """Call `fn()` when `time.monotonic()` has reached that time, never earlier."""
        timer = Timer(self, fn)
        heapq.heappush(self._timers, (monotonic_seconds, next(self._order), timer))
        return timer

    def call_later(self, seconds: float, fn: Callable[[], object]) -> Timer:
        """Call `fn()` after a delay."""
        return self.call_at(time.monotonic() + seconds, fn)

    def call_soon(self, fn: Callable[[], object]) -> None:
        """Call `fn()` after the callbacks of the descriptors that are ready now."""
        self._soon.append(fn)

    def call_soon_threadsafe(self, fn: Callable[[], object]) -> None:
        """Call `fn()` soon in the loop's thread. Safe in any thread and signal handler; calls keep their order."""
        self._soon.append(fn)
        os.eventfd_write(self._wakeup, 1)

    def run(self) -> None:
        """Run until `stop`. May be called again afterwards."""
        poll, callbacks, stale = self._epoll.poll, self._callbacks, self._stale
        self._running = True
        while self._running:
            stale.clear()
            for fd, events in poll(self._poll_seconds(), EVENTS_PER_POLL):
                if fd in stale:
                    continue
                try:
                    callbacks[fd](events)
                except Exception as error:
                    self._on_error(error)
            if self._timers:
                self._call_due(time.monotonic())
            # Calls that are added meanwhile wait for the next round, after the descriptors.
            for _ in range(len(self._soon)):
                self._call(self._soon.popleft())

    def stop(self) -> None:
        """Make `run` return after the current round. In another thread use `call_soon_threadsafe(loop.stop)`."""
        self._running = False

    def close(self) -> None:
        """Close the loop's own descriptors. Registered ones stay open: they belong to their owners."""
        self._callbacks.clear()
        self._timers.clear()
        self._soon.clear()
        self._epoll.close()
        os.close(self._wakeup)

    def _poll_seconds(self) -> float:
        if self._soon:
            return 0
        if not self._timers:
            return -1
        return max(0.0, self._timers[0][0] - time.monotonic())

    def _call_due(self, now: float) -> None:
        timers = self._timers
        while timers and timers[0][0] <= now:
            timer = heapq.heappop(timers)[2]
            fn, timer.fn = timer.fn, None
            if fn is None:
                self._cancelled -= 1
            else:
                self._call(fn)

    def _call(self, fn: Callable[[], object]) -> None:
        try:
            fn()
        except Exception as error:
            self._on_error(error)

    def count_cancelled(self) -> None:
        """Count a cancelled timer, and remove such timers from the heap if there are many."""
        self._cancelled += 1
        if self._cancelled >= MIN_CANCELLED and self._cancelled * 2 > len(self._timers):
            self._timers[:] = [entry for entry in self._timers if entry[2].fn is not None]
            heapq.heapify(self._timers)
            self._cancelled = 0
