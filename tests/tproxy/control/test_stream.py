from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tproxy.harness import eventually, fail
from tproxy.control.stream import BACKOFF_SECONDS_MAX, MAX_QUEUED, Link, ReconcilerStream, backoff_seconds
from tproxy.io.loop import Loop
from tproxy.wire import AssignmentUpdate, HolderReport


@settings(deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_backoff_any_failures_stays_within_bounds(failures: int, chance: float) -> None:
    assert 0 < backoff_seconds(failures, chance) <= BACKOFF_SECONDS_MAX
    assert backoff_seconds(0, chance) <= 0.05


def test_link_without_reader_overflows_at_the_limit() -> None:
    overflows: list[bool] = []
    link = Link(lambda: overflows.append(True))
    for _ in range(MAX_QUEUED + 3):
        link.send(HolderReport())
    link.end()
    assert len(overflows) == 3
    assert sum(1 for _ in link) == MAX_QUEUED


class Receiver:
    """Records the ends of a stream."""

    def __init__(self) -> None:
        self.ends: list[str] = []

    def opened(self, link: Link) -> None: ...

    def received(self, link: Link, down: AssignmentUpdate) -> None: ...

    def closed(self, link: Link, error: str) -> None:
        self.ends.append(error)


class FaultyLoop(Loop):
    """A loop whose first call from another thread fails."""

    fails = True

    def call_soon_threadsafe(self, fn: Callable[[], object]) -> None:
        if self.fails:
            self.fails = False
            raise RuntimeError("can't start new thread")
        fn()


def test_stream_unexpected_error_reconnects() -> None:
    loop, receiver = FaultyLoop(fail), Receiver()
    stream = ReconcilerStream("127.0.0.1:9", loop, receiver, 10.0, None)
    eventually(lambda: len(receiver.ends) >= 2, "another attempt")
    stream.close()
    loop.close()
    assert "can't start new thread" in receiver.ends[0]
    assert "UNAVAILABLE" in receiver.ends[1]
