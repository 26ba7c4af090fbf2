"""Reports to the reconciler: the first held connection of a service at once, other changes within milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tproxy.control.stream import Link
from tproxy.hold_queue import HoldQueue
from tproxy.io.loop import Loop, Timer
from tproxy.wire import HolderHello, HolderReport

COALESCE_SECONDS = 0.003


class HoldReporter:
    """Reports changed queues, as totals, over the current stream."""

    def __init__(self, loop: Loop, hello: HolderHello, queues: Callable[[], Iterable[HoldQueue]]) -> None:
        self._loop = loop
        self._hello = hello
        self._queues = queues
        self._link: Link | None = None
        self._acked = 0
        self._changed: dict[str, HoldQueue] = {}
        self._timer: Timer | None = None

    def report(self, queue: HoldQueue, at_once: bool = False) -> None:
        """Report a queue that changed, together with others unless `at_once`."""
        if self._link is None:
            return
        self._changed[queue.address] = queue
        if at_once:
            self._flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(COALESCE_SECONDS, self._flush)

    def report_rules(self, rules: bool) -> None:
        """Mode tproxy: report whether rules redirect connections to the holder, now and on each new stream."""
        self._hello = HolderHello(self._hello.holder, self._hello.mode, rules)
        if self._link is not None:
            self._link.send(HolderReport(acked=self._acked, rules=rules))

    def acknowledge(self, link: Link, version: int) -> None:
        """Report that an `AssignmentUpdate` of this stream is in force."""
        if self._link is link:
            self._acked = version
            self._flush(force=True)

    def connected(self, link: Link) -> None:
        """Report everything over a new stream."""
        self._link = link
        self._acked = 0
        self._changed.clear()
        link.send(
            HolderReport(hello=self._hello, counts=tuple(queue.count() for queue in self._queues() if queue.used))
        )

    def disconnected(self, link: Link) -> None:
        """Stop reporting over a stream that has ended."""
        if self._link is link:
            self._link = None

    def _flush(self, force: bool = False) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._link is not None and (self._changed or force):
            counts = tuple(queue.count() for queue in self._changed.values())
            self._changed.clear()
            self._link.send(HolderReport(acked=self._acked, counts=counts))
