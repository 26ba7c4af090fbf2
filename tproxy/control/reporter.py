"""What the reconciler is told, and when: that somebody begins to wait at once, everything else within milliseconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Protocol

from tproxy.hold_queue import Park
from tproxy.io.loop import Loop, Timer
from tproxy.wire import Count, Hello, Up

COALESCE_SECONDS = 0.003


class Link(Protocol):
    """One stream to the reconciler, as far as the holder's thread is concerned."""

    def send(self, message: Up) -> None:
        """Hand over a message. Never blocks; after the stream has ended it goes nowhere."""


class Reporter:
    """Says what changed, as totals, over whichever stream there is."""

    def __init__(self, loop: Loop, hello: Hello, parks: Callable[[], Iterable[Park]]) -> None:
        self._loop = loop
        self._hello = hello
        self._parks = parks
        self._link: Link | None = None
        self._acked = 0
        self._dirty: dict[str, Park] = {}
        self._timer: Timer | None = None

    def diverted(self, rules: bool) -> None:
        """Mode tproxy: whether rules divert connections here; said now, and at the beginning of each stream."""
        self._hello = Hello(self._hello.holder, self._hello.mode, rules)
        if self._link is not None:
            self._link.send(Up(acked=self._acked, rules=rules))

    def opened(self, link: Link) -> None:
        """A new stream: say who we are, and everything that there is to say."""
        self._link = link
        self._acked = 0
        self._dirty.clear()
        link.send(Up(hello=self._hello, counts=tuple(park.count() for park in self._parks() if park.touched)))

    def closed(self, link: Link) -> None:
        """That stream is no more."""
        if self._link is link:
            self._link = None

    def changed(self, park: Park, at_once: bool) -> None:
        """A park changed."""
        if self._link is None:
            return
        self._dirty[park.address] = park
        if at_once:
            self.flush()
        elif self._timer is None:
            self._timer = self._loop.call_at(time.monotonic() + COALESCE_SECONDS, self.flush)

    def acknowledge(self, link: Link, version: int) -> None:
        """A `Down` of that stream is in force."""
        if self._link is link:
            self._acked = version
            self.flush(force=True)

    def flush(self, force: bool = False) -> None:
        """Say what is to be said."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._link is not None and (self._dirty or force):
            counts: tuple[Count, ...] = tuple(park.count() for park in self._dirty.values())
            self._dirty.clear()
            self._link.send(Up(acked=self._acked, counts=counts))
