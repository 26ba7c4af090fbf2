from __future__ import annotations

from tproxy.control.stream import HoldReporter, Link
from tproxy.hold_queue import HeldConnection, HoldQueue
from tproxy.io.loop import Loop
from tproxy.wire import Assignment, Hold, HolderHello, HolderReport


def ignored(held: HeldConnection, events: int) -> None: ...


def new_queue(at: int) -> HoldQueue:
    address = f"127.64.0.{at}:1"
    return HoldQueue(address, ignored, Assignment(address, f"web-{at}", "tcp", Hold(), 9, 60.0, None))


class Sent(Link):
    """A link that records its messages, and stops the loop with each."""

    def __init__(self, loop: Loop) -> None:
        super().__init__(lambda: None)
        self.all: list[HolderReport] = []
        self._loop = loop

    def send(self, message: HolderReport) -> None:
        self.all.append(message)
        self._loop.stop()


def connected(loop: Loop) -> tuple[HoldReporter, Sent]:
    """Return a reporter, and the link that it sends its messages over, with none on it."""
    reporter, sent = HoldReporter(loop, HolderHello("h", "anyip"), lambda: ()), Sent(loop)
    reporter.connected(sent)
    assert sent.all.pop().hello == HolderHello("h", "anyip")
    return reporter, sent


def test_report_first_held_connection_is_sent_at_once(loop: Loop) -> None:
    reporter, sent = connected(loop)
    queue = new_queue(1)
    queue.held = 1
    reporter.report(queue, at_once=True)
    assert [[count.held for count in message.counts] for message in sent.all] == [[1]]


def test_report_many_changes_are_coalesced(loop: Loop) -> None:
    reporter, sent = connected(loop)
    queues = [new_queue(1), new_queue(2)]
    for _ in range(500):
        for queue in queues:
            queue.gone += 1
            reporter.report(queue)
    assert sent.all == []
    loop.run()
    assert [[(count.address, count.gone) for count in message.counts] for message in sent.all] == [
        [("127.64.0.1:1", 500), ("127.64.0.2:1", 500)]
    ]
