"""The loop with real descriptors and real time."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from tests.tproxy.harness import fail
from tproxy.io.loop import Loop


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe2(os.O_NONBLOCK)
    yield ends
    for fd in ends:
        os.close(fd)


def test_loop_readable_descriptor_calls_back_with_events(loop: Loop, pipe: tuple[int, int]) -> None:
    seen: list[tuple[int, bytes]] = []

    def readable(events: int) -> None:
        seen.append((events, os.read(pipe[0], 10)))
        loop.stop()

    loop.register(pipe[0], select.EPOLLIN, readable)
    os.write(pipe[1], b"x")
    loop.run()
    assert seen == [(select.EPOLLIN, b"x")]


def test_modify_other_mask_changes_reported_events(loop: Loop, pipe: tuple[int, int]) -> None:
    seen: list[int] = []
    loop.register(pipe[1], 0, lambda events: (seen.append(events), loop.stop()))
    loop.call_later(0.01, lambda: loop.modify(pipe[1], select.EPOLLOUT))
    loop.run()
    assert seen == [select.EPOLLOUT]


def test_timers_fire_in_order_and_never_early(loop: Loop) -> None:
    begin = time.monotonic()
    seen: list[tuple[str, bool]] = []

    def note(name: str, due: float) -> Callable[[], None]:
        return lambda: seen.append((name, time.monotonic() >= begin + due))

    loop.call_at(begin + 0.03, loop.stop)
    loop.call_at(begin + 0.02, note("second", 0.02))
    loop.call_at(begin + 0.01, note("first", 0.01))
    loop.run()
    assert seen == [("first", True), ("second", True)]


def test_timer_cancelled_is_neither_called_nor_kept(loop: Loop) -> None:
    seen: list[str] = []
    timers = [loop.call_later(0.001, lambda: seen.append("cancelled")) for _ in range(1000)]
    loop.call_later(0.02, loop.stop)
    for timer in timers:
        timer.cancel()
        timer.cancel()
    assert len(loop._timers) < 200, "cancelled timers pile up"
    loop.run()
    assert seen == []
    timers[0].cancel()


def test_timers_cancelled_while_running_are_not_called(loop: Loop) -> None:
    seen: list[int] = []
    begin = time.monotonic()
    timers = [loop.call_at(begin + 0.3 + i / 1e5, partial(seen.append, i)) for i in range(500)]
    loop.call_at(begin, lambda: [timer.cancel() for i, timer in enumerate(timers) if i % 5])
    loop.call_at(begin + 0.4, loop.stop)
    loop.run()
    assert seen == list(range(0, 500, 5))


def test_call_soon_threadsafe_wakes_loop_and_keeps_order(loop: Loop) -> None:
    seen: list[int] = []

    def other() -> None:
        for i in range(1000):
            loop.call_soon_threadsafe(partial(seen.append, i))
        loop.call_soon_threadsafe(loop.stop)

    thread = threading.Thread(target=other)
    thread.start()
    loop.run()
    thread.join()
    assert seen == list(range(1000))


def test_call_soon_repeated_does_not_starve_descriptors(loop: Loop, pipe: tuple[int, int]) -> None:
    def again() -> None:
        loop.call_soon(again)

    loop.register(pipe[0], select.EPOLLIN, lambda _: loop.stop())
    again()
    os.write(pipe[1], b"x")
    loop.run()


def test_callback_that_raises_is_reported_and_loop_continues(pipe: tuple[int, int]) -> None:
    errors: list[str] = []
    loop = Loop(on_error=lambda error: errors.append(str(error)))

    def raise_with(what: str) -> None:
        raise ValueError(what)

    def readable(_events: int) -> None:
        os.read(pipe[0], 10)
        raise_with("descriptor")

    def soon() -> None:
        loop.call_later(0.01, lambda: raise_with("timer"))
        loop.call_later(0.02, loop.stop)
        raise_with("soon")

    loop.register(pipe[0], select.EPOLLIN, readable)
    os.write(pipe[1], b"x")
    loop.call_soon(soon)
    loop.run()
    loop.close()
    assert errors == ["descriptor", "soon", "timer"]


def test_stale_events_do_not_reach_a_reused_descriptor(loop: Loop) -> None:
    """Two pipes are ready in one batch; the first callback closes the second, whose number a third one receives."""
    pipes = [os.pipe2(os.O_NONBLOCK) for _ in range(3)]
    (silent, silent_writer), seen = pipes[2], list[str]()

    def closing(mine: int, other: int) -> Callable[[int], None]:
        def callback(_events: int) -> None:
            os.read(mine, 10)
            loop.unregister(other)
            os.dup2(silent, other)
            loop.register(other, select.EPOLLIN, lambda _: (seen.append("new"), os.read(silent, 10), loop.stop()))
            loop.call_soon(lambda: (seen.append("written to"), os.write(silent_writer, b"y")))

        return callback

    first, second = pipes[0][0], pipes[1][0]
    loop.register(first, select.EPOLLIN, closing(first, second))
    loop.register(second, select.EPOLLIN, closing(second, first))
    for _, writer in pipes[:2]:
        os.write(writer, b"x")
    loop.run()
    assert seen == ["written to", "new"]
    for fd in [fd for ends in pipes for fd in ends]:
        os.close(fd)


def test_run_after_stop_runs_again(loop: Loop) -> None:
    for _ in range(2):
        loop.call_soon(loop.stop)
        loop.run()


def test_close_frees_the_loops_descriptors() -> None:
    before = len(os.listdir("/proc/self/fd"))
    Loop(fail).close()
    assert len(os.listdir("/proc/self/fd")) == before
